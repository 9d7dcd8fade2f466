"""Checkpoints that come back bit for bit, or not at all."""

import contextlib
import json
import os
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from absl import logging

from gnomon.experiments.hosts.board import Gone
from gnomon.experiments.hosts.crew import Crew
from gnomon.experiments.records.files import (
    make_folder,
    sync_folder,
    sync_tree,
    write_text,
)
from gnomon.experiments.trial.packing import pack, unpack, within
from gnomon.experiments.trial.parts import collect, write_part
from gnomon.experiments.trial.stored import (
    FORMAT,
    MANIFEST,
    SPREAD,
    DamagedCheckpointError,
    check_fit,
    check_identity,
    check_place,
    read_arrays,
    read_manifest,
    text_crc,
    write_arrays,
)


class Checkpoints:
    """The last few states of one run, in a folder that only this object writes to.

    A checkpoint is the folder `<step>` with two files: `arrays.npz`, the tree's leaves
    by their paths, which NumPy alone can read, and `manifest.json`, with the step,
    whose checkpoint it is, the tree's signature, the caller's `meta`, and a CRC-32 of
    every leaf and of the manifest itself. It is written to `<step>.tmp`, synced, and
    renamed when it is whole.

    Plain files by hand, and not Orbax: its writer is C++ and syncs nothing, so what a
    crash leaves of a save could not be tested; its manager counts a step before sums of
    it can be taken, and a leaf's sum checks the whole way from memory to memory.

    Arrays that several processes hold are saved by all of them, into a folder that
    they share: each writes the shards that it owns to a file of its own,
    `arrays-I-of-N.npz`, and process 0 the manifest, when all have written. It tells of
    each array's shards where they start. Any number of processes restores either form.

    - A save copies the tree to the host before it returns, so that the caller may
      donate its buffers to the next step; one thread writes in the background.
    - A kill during a save leaves the earlier checkpoints as they were. What the
      killed process had begun to write is removed by the next one's first save, or by
      `clean`.
    - A checkpoint that is not whole is passed over for the one before it.
    - A checkpoint that was renamed, or copied from another run, is refused.
    - `restore` writes and removes nothing: beside the process that saves, others may
      read. What is removed while they read it, they pass over for what is newer.

    To save, hold a `gnomon.experiments.records.locks.lock` for the folder: two
    writers would remove each other's unfinished writes; of several processes, process 0
    holds it. A weakly typed leaf comes back strongly typed.

    Args:
      directory: the folder; created by the first save.
      keep: how many checkpoints stay; a fallback needs at least two.
      identity: whose checkpoints they are, in JSON's types, such as
        ``{"trial": id, "run": id}``. Each field is written into the manifests and,
        unless it is None, compared by `restore`.
      crew: the processes that save and restore together, each of which must call
        `save` and `restore` when the others do; by default this one alone.

    Attributes:
      notes: What the last `restore` passed over and why, one line each.

    Example:
      >>> import tempfile, jax, jax.numpy as jnp
      >>> tree = {"w": jnp.arange(3.0), "key": jax.random.key(1), "count": 7}
      >>> with Checkpoints(tempfile.mkdtemp()) as checkpoints:
      ...     checkpoints.save(20, tree, {"position": 640})
      ...     step, restored, meta = checkpoints.restore(tree)
      >>> step, restored["w"].tolist(), restored["count"], meta
      (20, [0.0, 1.0, 2.0], 7, {'position': 640})
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        keep: int = 2,
        identity: Mapping[str, Any] | None = None,
        crew: Crew | None = None,
    ):
        if keep < 1:
            raise ValueError(f"keep={keep} keeps no checkpoint; it must be at least 1")
        self._folder = Path(directory).resolve()
        self._keep = keep
        self._identity = dict(identity or {})
        self._crew = crew or Crew()
        self._meeting = 0
        self._given_up = threading.Event()
        self._cleaned = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self._damaged: set[int] = set()
        self._saved: set[int] = set()
        self.notes: list[str] = []

    @property
    def latest(self) -> int | None:
        """The newest step that was saved and is not known to be damaged."""
        # Only the folder's owner looks: others may see it as it was a moment ago.
        there = self._steps() if self._crew.writes else []
        return max(self._saved.union(there) - self._damaged, default=None)

    def owner(self) -> dict[str, Any]:
        """The identity that the newest readable checkpoint bears; {} without one."""
        for step in reversed(self._steps()):
            with contextlib.suppress(DamagedCheckpointError, OSError):
                found = read_manifest(self._folder / str(step))
                return dict(found.get("identity") or {})
        return {}

    def save(
        self,
        step: int,
        tree: Any,
        meta: dict[str, Any],
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Saves a tree; returns when it is copied, before it is written.

        A save that is still being written is waited for, and what went wrong in it
        is raised here.

        Args:
          step: the number of steps taken; larger than that of any checkpoint here.
          tree: A pytree of JAX arrays (typed PRNG keys included), NumPy arrays and
            Python bools, ints and floats.
          meta: what else the run needs to go on, in JSON's types and NaN and
            infinity. A tuple comes back as a list.
          before: called, in the background, before the checkpoint counts: to sync
            what `meta` says is on the disk.

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
        spread = None if self._crew.alone else self._crew.owns
        manifest, arrays = pack(tree, spread, self._crew.writes)
        try:
            # There and back: JSON turns tuples to lists and all keys to strings, and
            # the checksum must be of what a reader will see.
            meta = json.loads(json.dumps(meta))
        except TypeError as error:
            raise TypeError(f"meta cannot be stored as JSON: {error}") from error
        form = FORMAT if self._crew.alone else SPREAD
        manifest |= {"format": form, "step": step, "meta": meta}
        manifest["identity"] = self._identity
        self.wait()
        write = self._write if self._crew.writes else self._write_part
        self._pending = self._writer.submit(write, step, manifest, arrays, before)
        self._saved = {step}

    def clean(self) -> None:
        """Removes what killed saves left; for the one who may save, as `save` does."""
        for unfinished in self._folder.glob("*.tmp"):
            shutil.rmtree(unfinished, ignore_errors=True)
        self._cleaned = True

    def restore(
        self,
        target: Any,
        *,
        refuse: Callable[[dict[str, Any]], str | None] = lambda meta: None,
        optional: Sequence[str] = (),
    ) -> tuple[int, Any, dict[str, Any]] | None:
        """Restores the newest checkpoint of which every leaf is good.

        Args:
          target: A pytree of the structure to restore: `ShapeDtypeStruct`s or arrays.
            A leaf with a sharding gets that sharding; a NumPy array stays NumPy.
          refuse: given a checkpoint's ``meta``, says why it is of no use, such as
            that what belongs to it is lost; it is then passed over like a damaged
            one.
          optional: fields at the top of the tree that may differ from what was saved.
            If they do, their leaves come back as they are in the target.

        Returns:
          (step, tree, meta), or `None` when there is no good checkpoint: none was
          made yet, or every one is damaged, which is logged as an error. A caller
          that then starts from step 0 reaches the same result, only later. Damaged
          checkpoints stay until the next save replaces them.

        Raises:
          CheckpointMismatchError: If the checkpoint's tree is not the target's, which
            the message tells by the first path that differs, or if it was saved as
            another step or for another identity. Nothing is restored then.
        """
        self.wait()
        self.notes = []
        if self._crew.alone:
            found = self._newest(target, refuse, optional)
        else:
            found = self._agreed(target, refuse, optional)
        if found is None:
            return None
        step, manifest, records, arrays, holes = found
        return step, unpack(records, arrays, target, holes), manifest["meta"]

    def _agreed(
        self, target: Any, refuse: Callable, optional: Sequence[str]
    ) -> tuple | None:
        """The checkpoint that process 0 finds to be the newest good one."""
        found: list[tuple | None] = []

        def choose() -> str:
            if self._crew.writes:
                found.append(self._newest(target, refuse, optional))
            return str(found[0][0]) if found and found[0] else ""

        chosen = self._crew.together(choose)[0]

        def follow() -> str:
            if chosen and not self._crew.writes:
                found.append(self._read(int(chosen), target, lambda _: None, optional))
            return ""

        self._crew.together(follow)
        self._meeting = self._crew.meetings
        if chosen:
            self._saved.add(int(chosen))
        return found[0] if found else None

    def _newest(
        self, target: Any, refuse: Callable, optional: Sequence[str]
    ) -> tuple | None:
        seen: set[int] = set()
        # Looked up anew each time: the folder's owner may have saved another since.
        while steps := [step for step in self._steps() if step not in seen]:
            step = steps[-1]
            seen.add(step)
            folder = self._folder / str(step)
            try:
                found = self._read(step, target, refuse, optional)
            except (DamagedCheckpointError, OSError) as error:
                if not folder.exists():  # removed by its owner, for newer ones
                    continue
                reason = str(error).strip().partition("\n")[0]
                note = f"checkpoint {folder} is damaged: {reason}"
                logging.warning("%s; trying the one before it", note)
                self.notes.append(note)
                self._damaged.add(step)
                continue
            if self.notes:
                logging.warning("going on from checkpoint %s", folder)
            return found
        if self.notes:
            logging.error("no checkpoint in %s is readable", self._folder)
        return None

    def _read(
        self, step: int, target: Any, refuse: Callable, optional: Sequence[str]
    ) -> tuple[int, dict, list, list, Sequence[str]]:
        """A checkpoint's step, manifest, records, arrays and left-out fields."""
        folder = self._folder / str(step)
        manifest = read_manifest(folder)
        check_place(folder, manifest)
        holes = check_fit(folder, manifest, target, optional)
        check_identity(folder, manifest, self._identity)
        if problem := refuse(manifest["meta"]):
            raise DamagedCheckpointError(problem)
        records = [
            record for record in manifest["leaves"] if not within(record["path"], holes)
        ]
        return step, manifest, records, read_arrays(folder, records), holes

    def wait(self) -> None:
        """Waits until what was saved is on disk; raises what went wrong there."""
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def give_up(self) -> None:
        """Waits no longer for what other processes are to write."""
        self._given_up.set()

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
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return []
        return sorted(int(name) for name in names if name.isdecimal())

    def _write(
        self,
        step: int,
        manifest: dict[str, Any],
        arrays: dict[str, np.ndarray],
        before: Callable[[], None],
    ) -> None:
        make_folder(self._folder)
        if not self._cleaned:
            self.clean()
        # First, so that they neither count among those kept nor stand in the way; and
        # forgotten only when they are gone, for `latest` looks at the folder.
        for old in sorted(self._damaged):
            self._remove(old)
            self._damaged.discard(old)
        folder = self._folder / f"{step}.tmp"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if self._crew.alone:
            write_arrays(folder, arrays)
        elif not self._write_parts(folder, manifest, arrays):
            return
        sealed = {"crc32": text_crc(manifest), "manifest": manifest}
        write_text(folder / MANIFEST, json.dumps(sealed, indent=1) + "\n")
        sync_tree(folder)
        before()
        os.rename(folder, self._folder / str(step))
        sync_folder(self._folder)
        for old in self._steps()[: -self._keep]:
            self._remove(old)

    def _key(self, step: int) -> str:
        return f"checkpoint/{self._meeting}/{step}"

    def _write_parts(
        self, folder: Path, manifest: dict[str, Any], arrays: dict[str, np.ndarray]
    ) -> bool:
        """Writes process 0's part and waits for the others'; false if it gave up."""
        crew, key = self._crew, self._key(manifest["step"])
        crew.board.post(f"{key}/begun", "")
        sums = {0: write_part(folder, 0, crew.count, manifest["leaves"], arrays)}
        try:
            for index in range(1, crew.count):
                text = crew.board.read(f"{key}/{index}", self._given_up.is_set)
                sums[index] = int(text)
        except Gone:
            return False
        collect(folder, manifest["leaves"], sums)
        return True

    def _write_part(
        self,
        step: int,
        manifest: dict[str, Any],
        arrays: dict[str, np.ndarray],
        before: Callable[[], None],
    ) -> None:
        crew, key = self._crew, self._key(step)
        try:
            crew.board.read(f"{key}/begun", self._given_up.is_set)
        except Gone:
            return
        folder = self._folder / f"{step}.tmp"
        made = write_part(folder, crew.index, crew.count, manifest["leaves"], arrays)
        before()
        crew.board.post(f"{key}/{crew.index}", str(made))

    def _remove(self, step: int) -> None:
        # Renamed first: a kill must not leave half a checkpoint that looks whole.
        doomed = self._folder / f"{step}.tmp"
        with contextlib.suppress(FileNotFoundError):
            os.rename(self._folder / str(step), doomed)
        shutil.rmtree(doomed, ignore_errors=True)
