"""Documents in files of text, JSON lines or Parquet, from any position on."""

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from gnomon.experiments.console.errors import UserError

PIECE = 2**20
"""Bytes of a text file that are tokenized at once."""
_VISIBLE = re.compile(rb"[!-~]")


class Piece(NamedTuple):
    """A document, or a part of a long one.

    Attributes:
      text: its bytes.
      ends: whether the document ends with it.
      file: where it stands.
      begins: the position of its beginning: a byte, in Parquet a row.
      next: the position where the next piece begins.
    """

    text: bytes
    ends: bool
    file: Path
    begins: int
    next: int


def read(file: Path, start: int, field: str) -> Iterator[Piece]:
    """Reads a file by its suffix: ``.jsonl`` or ``.ndjson``, ``.parquet``, else text.

    A text file is one document. One longer than 1 MiB comes in pieces of at most that
    much, cut at a line end with no space on either side where there is one: there
    GPT-2's rule for splitting words splits as well, so that the pieces' tokens are
    those of the whole.

    Args:
      file: what to read.
      start: a position that a piece gave as ``next``, or 0.
      field: which field of a JSON object, or column, holds the text.

    Yields:
      The pieces from there on, in order; documents without text are left out.

    Raises:
      UserError: names the file and the line or row that holds no text.
    """
    if file.suffix in (".jsonl", ".ndjson"):
        pieces = _json_lines(file, start, field)
    elif file.suffix == ".parquet":
        pieces = _parquet(file, start, field)
    else:
        pieces = _text(file, start)
    for piece in pieces:
        if piece.text:
            yield piece


def _text(file: Path, start: int) -> Iterator[Piece]:
    with open(file, "rb") as opened:
        size = os.fstat(opened.fileno()).st_size
        while start < size:
            data = os.pread(opened.fileno(), PIECE, start)
            if start + len(data) < size:
                data = data[: _cut(data)]
            if not data:
                raise UserError(f"{file} became shorter while it was read")
            begins, start = start, start + len(data)
            yield Piece(data, start == size, file, begins, start)


def _cut(data: bytes) -> int:
    """Where to cut a text: after the last line end without a space on either side."""
    end = len(data) - 1
    while (end := data.rfind(b"\n", 0, end)) > 0:
        if _VISIBLE.match(data, end - 1) and _VISIBLE.match(data, end + 1):
            return end + 1
    # One endless line: at least no character is cut in two.
    end = len(data) - 1
    while end > len(data) - 4 and data[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _json_lines(file: Path, start: int, field: str) -> Iterator[Piece]:
    with open(file, "rb") as opened:
        opened.seek(start)
        for line in opened:
            begins, start = start, start + len(line)
            if line.isspace():
                continue
            try:
                text = json.loads(line)[field]
            except (ValueError, TypeError, LookupError) as error:
                where = f"{file}:{_line_number(file, begins)}"
                raise UserError(
                    f"{where}: no JSON object with the field {field!r}"
                    f" ({type(error).__name__}: {error}); --field names another"
                ) from error
            if not isinstance(text, str):
                where = f"{file}:{_line_number(file, begins)}"
                raise UserError(
                    f"{where}: {field!r} is a {type(text).__name__}, not text"
                )
            yield Piece(_encoded(text), True, file, begins, start)


def _encoded(text: str) -> bytes:
    # JSON can spell half a surrogate pair, which UTF-8 cannot.
    return text.encode(errors="replace")


def _line_number(file: Path, position: int) -> int:
    with open(file, "rb") as opened:
        number = 1
        while opened.tell() < position:
            opened.readline()
            number += 1
        return number


def _parquet(file: Path, start: int, field: str) -> Iterator[Piece]:
    # Imported here, and an extra: other kinds of file do not need it.
    from pyarrow import parquet

    table = parquet.ParquetFile(file)
    if field not in table.schema_arrow.names:
        raise UserError(
            f"{file} has no column {field!r}, but"
            f" {', '.join(table.schema_arrow.names)}; --field names another"
        )
    row = 0
    for group in range(table.num_row_groups):
        rows = table.metadata.row_group(group).num_rows
        if row + rows <= start:
            row += rows
            continue
        for batch in table.iter_batches(1024, [group], columns=[field]):
            for text in batch.column(0).to_pylist():
                row += 1
                if row <= start:
                    continue
                if not isinstance(text, str):
                    raise UserError(
                        f"{file}: row {row} holds a {type(text).__name__} in {field!r},"
                        " not text"
                    )
                yield Piece(_encoded(text), True, file, row - 1, row)
