"""A checkpoint that several processes write, each its own part of every array."""

import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gnomon.experiments.records.files import sync_folder, write_text
from gnomon.experiments.trial.stored import write_arrays


def write_part(
    folder: Path,
    index: int,
    count: int,
    records: Sequence[Mapping[str, Any]],
    arrays: Mapping[str, Any],
) -> int:
    """Writes one process's shards, and what they are; all of it is then on the disk.

    Args:
      folder: of the checkpoint that is being written.
      index: which process.
      count: of how many.
      records: of each leaf, as `gnomon.experiments.trial.packing.pack` made them.
      arrays: its shards.

    Returns:
      The CRC-32 of what it says of them.
    """
    name = f"arrays-{index:05d}-of-{count:05d}.npz"
    write_arrays(folder, arrays, name)
    with open(folder / name, "rb") as file:
        os.fsync(file.fileno())
    sync_folder(folder)
    shards = [
        [shard | {"file": name} for shard in record.get("shards", ())]
        for record in records
    ]
    text = json.dumps(shards)
    write_text(folder / _part(index), text)
    return zlib.crc32(text.encode())


def collect(
    folder: Path, records: Sequence[dict[str, Any]], sums: Mapping[int, int]
) -> None:
    """Puts the shards of all parts into the records of process 0.

    Args:
      folder: of the checkpoint that is being written.
      records: of each leaf.
      sums: by process, what `write_part` returned there.

    Raises:
      OSError: a part is not as its process wrote it.
    """
    for record in records:
        if "shards" in record:
            record["shards"] = []
    for index, crc in sorted(sums.items()):
        path = folder / _part(index)
        text = path.read_bytes()
        if zlib.crc32(text) != crc:
            raise OSError(f"{path} is not as process {index} wrote it")
        for record, shards in zip(records, json.loads(text), strict=True):
            if "shards" in record:
                record["shards"] += shards
        path.unlink()


def _part(index: int) -> str:
    return f"part-{index:05d}.json"
