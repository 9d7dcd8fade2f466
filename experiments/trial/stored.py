"""One checkpoint as it lies on the disk: its manifest, its sums, its arrays."""

import contextlib
import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.records.files import read_object
from gnomon.experiments.trial.packing import array_crc, within
from gnomon.experiments.trial.signature import first_difference, signature

FORMAT = 3  # 2 had the arrays as a checkpoint of Orbax
SPREAD = 4  # with the shards of each array, in a file for each process
MANIFEST = "manifest.json"
ARRAYS = "arrays.npz"


class CheckpointMismatchError(ConfigError):
    """A good checkpoint of another model or optimizer, or of another place."""


class DamagedCheckpointError(Exception):
    """A checkpoint whose bytes are not the ones that were saved."""


def read(folder: Path) -> tuple[dict[str, Any], list[np.ndarray | None]]:
    """Reads the manifest and the checked arrays of one checkpoint, by its own word."""
    manifest = read_manifest(folder)
    check_format(folder, manifest)
    return manifest, read_arrays(folder, manifest["leaves"])


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a checkpoint, once its own sum is right."""
    try:
        sealed = read_object(folder / MANIFEST, manifest=dict, crc32=int)
    except ConfigError as error:
        raise DamagedCheckpointError(f"{MANIFEST} is not valid") from error
    manifest = sealed["manifest"]
    if text_crc(manifest) != sealed["crc32"]:
        raise DamagedCheckpointError(f"{MANIFEST} has changed")
    return manifest


def check_format(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuses a checkpoint of another format."""
    if manifest["format"] not in (FORMAT, SPREAD):
        raise CheckpointMismatchError(
            f"checkpoint {folder} has format {manifest['format']}; this version of "
            f"gnomon reads formats {FORMAT} and {SPREAD}; use another --workdir"
        )


def check_place(folder: Path, manifest: dict[str, Any]) -> None:
    """Refuses a checkpoint of another format, or one that was renamed."""
    check_format(folder, manifest)
    if manifest["step"] != int(folder.name):
        raise CheckpointMismatchError(
            f"checkpoint {folder} was saved as step {manifest['step']}, and renamed or"
            f" copied since; remove {folder} and run the same command again"
        )


def check_identity(
    folder: Path, manifest: dict[str, Any], identity: Mapping[str, Any]
) -> None:
    """Refuses a checkpoint of another run or trial."""
    for name, mine in identity.items():
        theirs = manifest["identity"].get(name)
        if mine is not None and theirs != mine:
            raise CheckpointMismatchError(
                f"checkpoint {folder} belongs elsewhere: its {name} is {theirs}, and"
                f" here it is {mine}; remove {folder} and run the same command again"
            )


def check_fit(
    folder: Path, manifest: dict[str, Any], target: Any, optional: Sequence[str]
) -> Sequence[str]:
    """Compares the trees; returns the fields to leave out, if that makes them equal."""
    saved = [(path, kind) for path, kind in manifest["signature"]]
    wanted = signature(target)
    if first_difference(saved, wanted) is None:
        return ()
    difference = first_difference(
        *([(p, k) for p, k in s if not within(p, optional)] for s in (saved, wanted))
    )
    if difference is not None:
        raise CheckpointMismatchError(
            f"checkpoint {folder} does not fit: {difference}. "
            "It was made with another model or optimizer; use another --workdir"
        )
    return optional


def write_arrays(folder: Path, arrays: Mapping[str, Any], name: str = ARRAYS) -> None:
    """Writes arrays into a new file; what brings it to the disk is up to the caller."""
    with open(folder / name, "xb") as file:
        np.savez(file, **arrays)


def read_arrays(
    folder: Path, records: Sequence[Mapping[str, Any]]
) -> list[np.ndarray | None]:
    """The arrays that records tell of, each of them added up; None for a value.

    Raises:
      DamagedCheckpointError: one is missing, or not as it was.
    """
    spread = [record["shards"] for record in records if "shards" in record]
    files = {shard["file"] for shards in spread for shard in shards}
    name, names = ARRAYS, sorted(files) if spread else [ARRAYS]
    try:
        with contextlib.ExitStack() as stack:
            opened = {}
            for name in names:
                # Opened here: NumPy leaves a file open that it finds damaged.
                file = stack.enter_context(open(folder / name, "rb"))
                opened[name] = stack.enter_context(np.load(file, allow_pickle=False))
            return [_checked(record, opened) for record in records]
    except (DamagedCheckpointError, MemoryError):
        raise
    except Exception as error:  # as many, while it is opened
        raise DamagedCheckpointError(f"{name}: {error}") from error


def _checked(
    record: Mapping[str, Any], stored: Mapping[str, Mapping[str, np.ndarray]]
) -> np.ndarray | None:
    if "value" in record:
        return None
    shape, dtype = tuple(record["shape"]), jnp.dtype(record["dtype"])
    if 0 in shape:
        return np.zeros(shape, dtype)
    if "shards" not in record:
        return _array(record, record["path"], dtype, ARRAYS, stored)
    whole, filled = np.empty(shape, dtype), 0
    for shard in record["shards"]:
        part = _array(shard, record["path"], dtype, shard["file"], stored)
        ends = zip(shard["start"], part.shape, strict=True)
        whole[tuple(slice(start, start + size) for start, size in ends)] = part
        filled += part.size
    if filled != whole.size:
        raise DamagedCheckpointError(f"{record['path']} lacks a part")
    return whole


def _array(
    record: Mapping[str, Any],
    path: str,
    dtype: np.dtype,
    file: str,
    stored: Mapping[str, Mapping[str, np.ndarray]],
) -> np.ndarray:
    try:
        array = stored[file][record["name"]]
    except MemoryError:
        raise
    except Exception as error:  # a damaged archive raises errors of many types
        raise DamagedCheckpointError(f"{file}: {error}") from error
    if array.dtype.kind == "V":  # of a type that is not NumPy's, such as bfloat16
        array = array.view(dtype)
    same = array.shape == tuple(record["shape"]) and array.dtype == dtype
    if not same or array_crc(array) != record["crc32"]:
        raise DamagedCheckpointError(f"{file}: the bytes of {path} have changed")
    return array


def text_crc(manifest: dict[str, Any]) -> int:
    """The CRC-32 of a manifest as JSON."""
    return zlib.crc32(json.dumps(manifest, sort_keys=True).encode())
