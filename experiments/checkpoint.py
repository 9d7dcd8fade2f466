"""Checkpoints that come back bit for bit, or not at all."""

import contextlib
import json
import os
import shutil
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from gnomon.experiments.files import read_json, sync_folder, write_text
from gnomon.experiments.signature import (
    first_difference,
    leaf_type,
    path_name,
    signature,
)

FORMAT = 1
MANIFEST = "manifest.json"


class CheckpointMismatchError(ValueError):
    """A good checkpoint that belongs to another model or optimizer."""


class DamagedCheckpointError(Exception):
    """A checkpoint whose bytes are not the ones that were saved."""


class Checkpoints:
    """The last few states of one run, in a folder that only this object writes to.

    A checkpoint is the folder `<step>` with two entries: `arrays`, an Orbax
    checkpoint of a flat dictionary of the tree's leaves, and `manifest.json`, with
    the tree's signature, the caller's `meta`, and a CRC-32 of every leaf, of every
    file below `arrays`, and of the manifest itself. It is written to `<step>.tmp`
    and renamed when it is whole.

    Orbax's own `CheckpointManager` commits a step as soon as Orbax has written it,
    which leaves no moment to add up its files. Those sums are what allow damage to
    be found before any of it is decoded, and a leaf's sum checks the whole way from
    memory to memory.

    - A save copies the tree to the host before it returns, so that the caller may
      donate its buffers to the next step; one thread writes in the background.
    - A kill during a save leaves the earlier checkpoints as they were. What the
      killed process had begun to write is removed when the folder is next opened.
    - A checkpoint that is not whole is passed over for the one before it.

    Hold a `gnomon.experiments.files.lock` for the folder: two processes would
    remove each other's unfinished writes. Leaves must be addressable by this
    process. A weakly typed leaf comes back strongly typed.

    Args:
      directory: The folder; created when missing.
      keep: How many checkpoints stay; a fallback needs at least two.

    Attributes:
      notes: What the last `restore` passed over and why, one line each.

    Example:
      >>> import tempfile
      >>> tree = {"w": jnp.arange(3.0), "key": jax.random.key(1), "count": 7}
      >>> with Checkpoints(tempfile.mkdtemp()) as checkpoints:
      ...     checkpoints.save(20, tree, {"position": 640})
      ...     step, restored, meta = checkpoints.restore(tree)
      >>> step, restored["w"].tolist(), restored["count"], meta
      (20, [0.0, 1.0, 2.0], 7, {'position': 640})
    """

    def __init__(self, directory: str | os.PathLike[str], keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep={keep} keeps no checkpoint; it must be at least 1")
        self._folder = Path(directory).resolve()
        self._folder.mkdir(parents=True, exist_ok=True)
        for unfinished in self._folder.glob("*.tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)
        self._keep = keep
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._damaged: set[int] = set()
        self._saved: set[int] = set()
        self.notes: list[str] = []

    @property
    def latest(self) -> int | None:
        """The newest step that was saved and is not known to be damaged."""
        known = self._saved.union(self._steps()) - self._damaged
        return max(known, default=None)

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves a tree; returns when it is copied, before it is written.

        A save that is still being written is waited for, and what went wrong in it
        is raised here.

        Args:
          step: The number of steps taken; larger than that of any checkpoint here.
          tree: A pytree of JAX arrays (typed PRNG keys included), NumPy arrays and
            Python bools, ints and floats.
          meta: What else the run needs to go on, in JSON's types and NaN and
            infinity. A tuple comes back as a list.

        Raises:
          ValueError: If `step` is not newer than the newest checkpoint.
          TypeError: If a leaf or `meta` cannot be stored. The message names it.
        """
        newest = self.latest
        if newest is not None and step <= newest:
            raise ValueError(
                f"step={step} is not after checkpoint {newest} in {self._folder}; "
                "restore that first, or use another --workdir"
            )
        manifest, arrays = _pack(tree)
        try:
            # There and back: JSON turns tuples to lists and all keys to strings, and
            # the checksum must be of what a reader will see.
            meta = json.loads(json.dumps(meta))
        except TypeError as error:
            raise TypeError(f"meta cannot be stored as JSON: {error}") from error
        manifest |= {"format": FORMAT, "step": step, "meta": meta}
        self.wait()
        damaged, self._damaged = self._damaged, set()
        self._pending = self._writer.submit(
            self._write, step, manifest, arrays, damaged
        )
        self._saved = {step}

    def restore(self, target: Any) -> tuple[int, Any, dict[str, Any]] | None:
        """Restores the newest checkpoint whose every byte is good.

        Args:
          target: A pytree of the structure to restore: `ShapeDtypeStruct`s or arrays.
            A leaf with a sharding gets that sharding; a NumPy array stays NumPy.

        Returns:
          (step, tree, meta), or `None` when there is no good checkpoint: none was
          made yet, or every one is damaged, which is logged as an error. A caller
          that then starts from step 0 reaches the same result, only later. Damaged
          checkpoints stay until the next save replaces them.

        Raises:
          CheckpointMismatchError: If the checkpoint's tree is not the target's. The
            message names the first path that differs. Nothing is restored then.
        """
        self.wait()
        self.notes = []
        for step in reversed(self._steps()):
            folder = self._folder / str(step)
            try:
                manifest = _read_manifest(folder)
                _check_fit(folder, manifest, target)
                _check_files(folder, manifest)
                arrays = _read_arrays(folder, manifest)
            except (CheckpointMismatchError, MemoryError):
                raise
            # Past the checksums Orbax may still fail, with errors of many types;
            # each of them means that this checkpoint cannot be had.
            except Exception as error:
                reason = str(error).strip().partition("\n")[0]
                note = f"checkpoint {folder} is damaged: {reason}"
                logging.warning("%s; trying the one before it", note)
                self.notes.append(note)
                self._damaged.add(step)
                continue
            return step, _unpack(manifest, arrays, target), manifest["meta"]
        if self.notes:
            logging.error("no checkpoint in %s is readable", self._folder)
        return None

    def wait(self) -> None:
        """Waits until what was saved is on disk; raises what went wrong there."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Waits like `wait` and stops the background thread."""
        try:
            self.wait()
        finally:
            self._writer.shutdown()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _steps(self) -> list[int]:
        names = (entry.name for entry in self._folder.iterdir())
        return sorted(int(name) for name in names if name.isdecimal())

    def _write(
        self,
        step: int,
        manifest: dict[str, Any],
        arrays: dict[str, np.ndarray],
        damaged: set[int],
    ) -> None:
        # First, so that they neither count among those kept nor stand in the way.
        for old in damaged:
            self._remove(old)
        folder = self._folder / f"{step}.tmp"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if arrays:
            with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
                checkpointer.save(folder / "arrays", args=ocp.args.PyTreeSave(arrays))
        manifest["files"] = {
            os.fspath(path.relative_to(folder)): _file_crc(path)
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        sealed = {"crc32": _text_crc(manifest), "manifest": manifest}
        write_text(folder / MANIFEST, json.dumps(sealed, indent=1) + "\n")
        os.rename(folder, self._folder / str(step))
        sync_folder(self._folder)
        for old in self._steps()[: -self._keep]:
            self._remove(old)

    def _remove(self, step: int) -> None:
        # Renamed first: a kill must not leave half a checkpoint that looks whole.
        doomed = self._folder / f"{step}.tmp"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._folder / str(step), doomed)
        shutil.rmtree(doomed, ignore_errors=True)


def read(folder: Path) -> tuple[dict[str, Any], list[np.ndarray | None]]:
    """Reads the manifest and the checked arrays of one checkpoint, by its own word."""
    manifest = _read_manifest(folder)
    _check_files(folder, manifest)
    return manifest, _read_arrays(folder, manifest)


def _read_manifest(folder: Path) -> dict[str, Any]:
    sealed = read_json(folder / MANIFEST)
    manifest = sealed["manifest"]
    if _text_crc(manifest) != sealed["crc32"]:
        raise DamagedCheckpointError(f"{MANIFEST} has changed")
    return manifest


def _check_fit(folder: Path, manifest: dict[str, Any], target: Any) -> None:
    if manifest["format"] != FORMAT:
        raise CheckpointMismatchError(
            f"checkpoint {folder} has format {manifest['format']}; this version of "
            f"gnomon reads format {FORMAT}; use another --workdir"
        )
    saved = [(path, kind) for path, kind in manifest["signature"]]
    difference = first_difference(saved, signature(target))
    if difference is not None:
        raise CheckpointMismatchError(
            f"checkpoint {folder} does not fit: {difference}. "
            "It was made with another model or optimizer; use another --workdir"
        )


def _check_files(folder: Path, manifest: dict[str, Any]) -> None:
    for name, crc in manifest["files"].items():
        if not (folder / name).is_file():
            raise DamagedCheckpointError(f"{name} is missing")
        if _file_crc(folder / name) != crc:
            raise DamagedCheckpointError(f"{name} has changed")


def _read_arrays(folder: Path, manifest: dict[str, Any]) -> list[np.ndarray | None]:
    stored: dict[str, Any] = {}
    if manifest["files"]:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            stored = checkpointer.restore(
                folder / "arrays", args=ocp.args.PyTreeRestore()
            )
    arrays: list[np.ndarray | None] = []
    for leaf in manifest["leaves"]:
        if "value" in leaf:
            arrays.append(None)
            continue
        shape, dtype = tuple(leaf["shape"]), jnp.dtype(leaf["dtype"])
        if 0 in shape:
            arrays.append(np.zeros(shape, dtype))
            continue
        array = np.asarray(stored[leaf["name"]])
        same = array.shape == shape and array.dtype == dtype
        if not same or _crc(array) != leaf["crc32"]:
            raise DamagedCheckpointError(f"the bytes of {leaf['path']} have changed")
        arrays.append(array)
    return arrays


def _text_crc(manifest: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())


def _file_crc(path: Path) -> int:
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            crc = zlib.crc32(block, crc)
    return crc


def _crc(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _pack(tree: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    for _, leaf in leaves:
        if isinstance(leaf, jax.Array):
            leaf.copy_to_host_async()
    records: list[dict[str, Any]] = []
    arrays: dict[str, np.ndarray] = {}
    for index, (path, leaf) in enumerate(leaves):
        record: dict[str, Any] = {"path": path_name(path)}
        records.append(record)
        # By type, not isinstance: a NumPy float64 is a float too.
        if type(leaf) in (bool, int, float):
            record["value"] = leaf
            continue
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic):
            raise TypeError(f"{record['path']} is a {leaf_type(leaf)}, not an array")
        if isinstance(leaf, jax.Array):
            if not leaf.is_fully_addressable:
                raise TypeError(f"{record['path']} lies partly in other processes")
            if _is_key(leaf):
                record["impl"] = str(jax.random.key_impl(leaf))
                leaf = jax.random.key_data(leaf)
        # A copy always: on a CPU NumPy would get a view of the buffer, and as long as
        # that lives, JAX would not reuse the buffer that the caller donates.
        array = np.array(leaf, copy=True, order="C")
        record |= {
            "shape": array.shape,
            "dtype": str(array.dtype),
            "crc32": _crc(array),
        }
        # Storage has no chunk for nothing: an empty array is its shape.
        if array.size:
            # The key "a/b" and the key "b" under "a" have one and the same path.
            taken = record["path"] in arrays
            name = f"{record['path']}#{index}" if taken else record["path"]
            record["name"] = name
            arrays[name] = array
    return {"signature": signature(tree), "leaves": records}, arrays


def _unpack(
    manifest: dict[str, Any], arrays: list[np.ndarray | None], target: Any
) -> Any:
    leaves, structure = jax.tree.flatten(target)
    restored = [
        record["value"] if array is None else _place(record, array, leaf)
        for record, array, leaf in zip(manifest["leaves"], arrays, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, restored)


def _place(record: dict[str, Any], array: np.ndarray, leaf: Any) -> Any:
    if isinstance(leaf, np.ndarray):
        return array
    if isinstance(leaf, np.generic):
        return array[()]
    value: Any = array
    if "impl" in record:
        value = jax.random.wrap_key_data(jnp.asarray(array), impl=record["impl"])
    # An array that was never bound to a device must not come back bound to one:
    # it could not meet arrays of another device in the same program.
    committed = getattr(leaf, "committed", True)
    sharding = getattr(leaf, "sharding", None) if committed else None
    placed = jax.device_put(value, sharding)
    if placed.dtype != leaf.dtype:
        raise TypeError(
            f"{record['path']} is {leaf.dtype} but came back as {placed.dtype}; "
            "enable jax_enable_x64 as in the run that saved it"
        )
    return placed
