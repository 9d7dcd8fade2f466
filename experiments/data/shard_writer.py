"""Writes shards, each with a record that says that it is whole and what comes next."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gnomon.experiments.data.documents import Piece
from gnomon.experiments.data.shards import DTYPES
from gnomon.experiments.data.vocabulary import Vocabulary
from gnomon.experiments.records import files

WORK = ".tokenize"
"""The folder, in that of the shards, of what a killed command needs to go on."""


class Position(NamedTuple):
    """Where in the input a shard begins: the number of the file, and how far in it."""

    file: int
    offset: int


def dtype_of(vocabulary: Vocabulary) -> np.dtype:
    """The smallest type that holds all tokens, of 16 bits or 32."""
    return DTYPES["u2" if vocabulary.size <= 2**16 else "u4"]


class ShardWriter:
    """A shard that is being filled, in memory until it is written.

    Args:
      vocabulary: its tokens.
    """

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._dtype = dtype_of(vocabulary)
        self._end = np.array([vocabulary.end_of_text], self._dtype).tobytes()
        self._data = bytearray()
        self._bytes = self._documents = 0

    @property
    def tokens(self) -> int:
        """How many it holds."""
        return len(self._data) // self._dtype.itemsize

    def add(self, piece: Piece, ids: np.ndarray) -> None:
        """Adds the tokens of a piece, and an end of text where a document ends."""
        self._data += ids.astype(self._dtype).tobytes()
        if piece.ends:
            self._data += self._end
        self._bytes += len(piece.text)
        self._documents += piece.ends

    def write(self, folder: Path, number: int, following: Position) -> dict[str, Any]:
        """Writes the shard, then its record, which says that the shard is whole."""
        header = io.BytesIO()
        about = {"descr": self._dtype.str, "fortran_order": False}
        np.lib.format.write_array_header_1_0(header, about | {"shape": (self.tokens,)})
        name = f"{number:05d}.npy"
        record = {
            "name": name,
            "tokens": self.tokens,
            "bytes": self._bytes,
            "documents": self._documents,
            "next": list(following),
        }
        files.write_bytes(folder / name, header.getvalue(), self._data)
        files.write_json(_record(folder, number), record)
        return record


def finished(folder: Path) -> list[dict[str, Any]]:
    """The records of the shards that are whole, in order."""
    records: list[dict[str, Any]] = []
    while (path := _record(folder, len(records))).exists():
        record = files.read_object(path, name=str, tokens=int, bytes=int, next=list)
        if not (folder / record["name"]).exists():
            break
        records.append(record)
    return records


def _record(folder: Path, number: int) -> Path:
    return folder / WORK / f"{number:05d}.json"
