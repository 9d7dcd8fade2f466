"""Shards of tokens: what a file says of itself, and reading a span of it."""

import abc
import dataclasses
import functools
import os
import re
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.experiments.config.resolve import ConfigError

DTYPES = {name: np.dtype(name).newbyteorder("<") for name in ("u1", "u2", "u4")}
"""How a token may be stored: little-endian, unsigned."""
HEADER_BYTES = 1024
# By magic number: the version that is known, and the type of its tokens.
_HEADERS = {20240520: (1, DTYPES["u2"]), 20240801: (7, DTYPES["u4"])}
_RECORDS = re.compile(r"\.array_?record(-\d+-of-\d+)?$")
# Below what systems allow a process, however many shards there are.
_MOST_OPEN = 100


@dataclasses.dataclass(frozen=True)
class Shard(abc.ABC):
    """A file as a sequence of tokens.

    Attributes:
      path: where it is.
      count: how many tokens it holds.
      dtype: how one is stored.
    """

    path: Path
    count: int
    dtype: np.dtype

    @abc.abstractmethod
    def read(self, start: int, stop: int) -> np.ndarray:
        """Returns the tokens from ``start`` up to ``stop``, both within the shard."""


def open_shards(folder: Path, dtype: np.dtype | None = None) -> list[Shard]:
    """Opens the shards of a folder, sorted by name; none is read beyond its ends.

    A shard is a ``.bin`` file (with the 1,024-byte header of GPT-2 shards or of Llama 3
    shards, or raw), a one-dimensional ``.npy`` file, or an ArrayRecord file
    (``.array_record``, ``.arrayrecord``, ``.array_record-00000-of-00008``) whose
    records are the bytes of equally many tokens each, the last one of no more.

    Args:
      folder: the folder.
      dtype: of raw files and records, which do not say.

    Returns:
      The shards, at least one, all of one dtype.

    Raises:
      ConfigError: names the file that is none of these, and why.
    """
    if not folder.is_dir():
        raise ConfigError(f"config.data.path: there is no folder {folder}")
    flat = functools.lru_cache(_MOST_OPEN)(_Descriptor)
    records = functools.lru_cache(_MOST_OPEN)(_record_reader)
    shards: list[Shard] = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.suffix == ".npy":
            shards.append(_npy(path, flat))
        elif path.suffix == ".bin":
            shards.append(_bin(path, dtype, flat))
        elif _RECORDS.search(path.name):
            shards.append(_records(path, dtype, records))
    if not shards:
        raise ConfigError(
            f"config.data.path: {folder} holds no shards (.bin, .npy, .array_record)"
        )
    for shard in shards:
        if shard.dtype != shards[0].dtype:
            raise ConfigError(
                f"config.data.path: {shards[0].path.name} holds"
                f" {shards[0].dtype.name} and {shard.path.name} {shard.dtype.name};"
                " shards of one folder need one dtype"
            )
    return shards


@dataclasses.dataclass(frozen=True)
class Flat(Shard):
    """Tokens one after another in a file, from an offset on.

    Spans are read, not mapped: pages that are mapped count as memory of the process and
    add up to the whole file, and a mapped file that was cut short ends the process.
    """

    offset: int
    opened: Callable[[Path], "_Descriptor"]

    def read(self, start: int, stop: int) -> np.ndarray:
        """As `Shard` says."""
        size = (stop - start) * self.dtype.itemsize
        at = self.offset + start * self.dtype.itemsize
        data = os.pread(self.opened(self.path).number, size, at)
        if len(data) != size:
            raise ConfigError(f"{self.path} has become shorter since it was opened")
        return np.frombuffer(data, self.dtype)


@dataclasses.dataclass(frozen=True)
class Records(Shard):
    """Tokens in records of ``each`` tokens, the last record of up to as many."""

    each: int
    opened: Callable[[Path], Any]

    def read(self, start: int, stop: int) -> np.ndarray:
        """As `Shard` says."""
        if start == stop:
            return np.empty(0, self.dtype)
        first, last = start // self.each, (stop - 1) // self.each
        parts = _read(self.path, self.opened, range(first, last + 1), self.dtype)
        for number, part in enumerate(parts, first):
            expected = min(self.each, self.count - number * self.each)
            if len(part) != expected:
                raise ConfigError(
                    f"{self.path}: record {number} holds {len(part)} tokens, the first"
                    f" one {self.each}; all but the last must hold equally many"
                )
        return np.concatenate(parts)[start - first * self.each :][: stop - start]


class _Descriptor:
    """An open file, closed when its last user has let go of it."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self.number)


def _npy(path: Path, opened: Callable[[Path], _Descriptor]) -> Flat:
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0
            if version != (1, 0):
                read = np.lib.format.read_array_header_2_0
            shape, _, dtype = read(file)
            offset = file.tell()
    except ValueError as error:
        raise ConfigError(f"{path} is not a .npy file: {error}") from error
    if len(shape) != 1 or dtype not in DTYPES.values():
        raise ConfigError(
            f"{path} holds {dtype} of shape {shape}; a shard is one-dimensional uint8,"
            " uint16 or uint32, little-endian"
        )
    _require_size(path, offset, shape[0], dtype)
    return Flat(path, shape[0], dtype, offset, opened)


def _bin(
    path: Path, dtype: np.dtype | None, opened: Callable[[Path], _Descriptor]
) -> Flat:
    with open(path, "rb") as file:
        start = file.read(HEADER_BYTES)
    header = np.frombuffer(start[: len(start) // 4 * 4], "<i4")
    magic = int(header[0]) if header.size else 0
    if magic in _HEADERS and header.nbytes == HEADER_BYTES:
        version, found = _HEADERS[magic]
        if header[1] != version:
            raise ConfigError(
                f"{path} has a header of magic {magic} and version {header[1]}, of"
                f" which version {version} is known"
            )
        if dtype not in (None, found):
            raise ConfigError(
                f"{path} holds {found.name} by its header, but {dtype} was stated"
            )
        count = int(header[2])
        _require_size(path, HEADER_BYTES, count, found)
        return Flat(path, count, found, HEADER_BYTES, opened)
    if dtype is None:
        raise ConfigError(
            f"{path} has no header that is known: it begins with {magic}, not with one"
            f" of {', '.join(map(str, _HEADERS))}. If it is raw tokens, say"
            " config.data.dtype='uint16' or 'uint32', or put {\"dtype\": \"uint16\"}"
            " into meta.json beside it"
        )
    size = path.stat().st_size
    if size % dtype.itemsize:
        raise ConfigError(
            f"{path} has {size} bytes, which is no whole number of {dtype.name}"
        )
    return Flat(path, size // dtype.itemsize, dtype, 0, opened)


def _require_size(path: Path, offset: int, count: int, dtype: np.dtype) -> None:
    size, wanted = path.stat().st_size, offset + count * dtype.itemsize
    if size != wanted:
        raise ConfigError(
            f"{path} is damaged: its header says {count} tokens, {wanted} bytes, and it"
            f" has {size}"
        )


def _records(
    path: Path, dtype: np.dtype | None, opened: Callable[[Path], Any]
) -> Records:
    if dtype is None:
        raise ConfigError(
            f"{path} does not say how its tokens are stored: say"
            " config.data.dtype='uint16' or 'uint32', or put {\"dtype\": \"uint16\"}"
            " into meta.json beside it"
        )
    number = opened(path).num_records()
    if number == 0:
        return Records(path, 0, dtype, 1, opened)
    first, last = _read(path, opened, (0, number - 1), dtype)
    each = len(first)
    if each == 0 or len(last) > each:
        raise ConfigError(
            f"{path}: its first record holds {each} tokens and its last {len(last)};"
            " all but the last must hold equally many, and it no more"
        )
    return Records(path, (number - 1) * each + len(last), dtype, each, opened)


def _record_reader(path: Path) -> Any:
    # Imported here because other formats do not need it.
    from array_record.python.array_record_module import ArrayRecordReader

    reader = ArrayRecordReader(
        str(path),
        # For random access: no threads, nothing read ahead, the index on disk.
        options="readahead_buffer_size:0,max_parallelism:0,"
        "index_storage_option:offloaded,footer_prefetch_bytes:0",
        file_reader_buffer_size=2**15,
    )
    if not reader.ok():
        raise ConfigError(f"{path} is damaged, or no ArrayRecord file")
    return reader


def _read(
    path: Path, opened: Callable[[Path], Any], numbers: Sequence[int], dtype: np.dtype
) -> list[np.ndarray]:
    records = opened(path).read(list(numbers))
    for record in records:
        if len(record) % dtype.itemsize:
            raise ConfigError(
                f"{path} has a record of {len(record)} bytes, which is no whole number"
                f" of {dtype.name}"
            )
    return [np.frombuffer(record, dtype) for record in records]
