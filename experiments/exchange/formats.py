"""Reads and writes columns as CSV, JSON lines or Parquet, by the file's ending."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gnomon.experiments.config.resolve import did_you_mean
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.exchange.values import write_cell
from gnomon.experiments.records.files import write_bytes, write_text
from gnomon.experiments.records.metrics import is_number

Cells = dict[str, list[Any]]
LARGEST = 10_000_000  # characters in a cell


def read_cells(path: Path) -> Cells:
    """Reads a table.

    Args:
      path: its ending says how it is written.

    Returns:
      The columns in their order; cells of CSV are text.

    Raises:
      UserError: it is no such table, or has no rows.
      FileNotFoundError: there is no such file.
    """
    reader = _kind(path, READERS)
    try:
        columns = reader(path)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}: no text in UTF-8 ({error}); save it as UTF-8"
        ) from error
    if not columns or not next(iter(columns.values())):
        raise UserError(
            f"{path}: no rows; a table has a heading and a row for each run"
        )
    return columns


def write_cells(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Writes a table, whole or not at all.

    Raises:
      UserError: the ending is of no kind that can be written.
    """
    _kind(path, WRITERS)(path, columns)


def _kind(path: Path, kinds: Mapping[str, Callable]) -> Callable:
    ending = path.suffix.lower()
    if ending not in kinds:
        raise UserError(
            f"{path}: a table ends in {', '.join(kinds)}{did_you_mean(ending, kinds)}"
        )
    return kinds[ending]


def _read_csv(path: Path) -> Cells:
    text = path.read_text(encoding="utf-8-sig")
    first = text.partition("\n")[0]
    delimiter = max(",\t;", key=first.count)
    before = csv.field_size_limit(LARGEST)
    try:
        rows = [row for row in csv.reader(io.StringIO(text, ""), delimiter=delimiter)]
    except csv.Error as error:
        raise UserError(f"{path}: no CSV ({error})") from error
    finally:
        csv.field_size_limit(before)
    lines = [(i, row) for i, row in enumerate(rows, 1) if any(map(str.strip, row))]
    if not lines:
        return {}
    heading = [name.strip() for name in lines[0][1]]
    # pandas writes its index under no name.
    heading = [name or f"unnamed {i}" for i, name in enumerate(heading)]
    twice = {name for name in heading if heading.count(name) > 1}
    if twice:
        raise UserError(f"{path}: the column {min(twice)!r} stands twice; rename one")
    for number, row in lines[1:]:
        if len(row) != len(heading):
            raise UserError(
                f"{path}, row {number}: {len(row)} cells under {len(heading)} names;"
                " quote cells that hold a comma"
            )
    return {name: [row[i] for _, row in lines[1:]] for i, name in enumerate(heading)}


def _read_json_lines(path: Path) -> Cells:
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number}: no object of names and values")
        rows.append(flat(row))
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def flat(row: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted names for what is nested; a list is the text of its JSON."""
    found: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = (
                json.dumps(value) if isinstance(value, list) else value
            )
    return found


def _read_parquet(path: Path) -> Cells:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path}: no Parquet ({error})") from error
    return {
        name: [_plain(value) for value in column.to_pylist()]
        for name, column in zip(table.column_names, table.columns, strict=True)
    }


def _plain(value: Any) -> Any:
    """A cell of Parquet as JSON could hold it."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return (
        json.dumps(value, default=str) if isinstance(value, list | dict) else str(value)
    )


def _write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    cells = [[write_cell(value) for value in column] for column in columns.values()]
    writer.writerows(zip(*cells, strict=True))
    write_text(path, text.getvalue())


def _write_json_lines(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    def plain(value: Any) -> Any:
        # An infinite number, and text that would read as another thing, in quotes.
        cell = write_cell(value)
        if isinstance(value, str):
            return cell
        return cell if cell.endswith("Infinity") else json.loads(cell or "null")

    rows = zip(*columns.values(), strict=True)
    lines = [
        json.dumps(dict(zip(columns, map(plain, row), strict=True))) + "\n"
        for row in rows
    ]
    write_text(path, "".join(lines))


def _write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    def array(column: Sequence[Any]) -> pyarrow.Array:
        known = [value for value in column if value is not None]
        if known and all(map(is_number, known)):
            numbers = [None if value is None else float(value) for value in column]
            return pyarrow.array(numbers, pyarrow.float64(), from_pandas=True)
        if known and all(isinstance(value, bool) for value in known):
            return pyarrow.array(column, pyarrow.bool_())
        cells = [None if value is None else write_cell(value) for value in column]
        return pyarrow.array(cells, pyarrow.string())

    table = pyarrow.table({name: array(column) for name, column in columns.items()})
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    write_bytes(path, sink.getvalue().to_pybytes())


READERS: Mapping[str, Callable[[Path], Cells]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
WRITERS: Mapping[str, Callable[[Path, Mapping[str, Sequence[Any]]], None]] = {
    ".csv": _write_csv,
    ".jsonl": _write_json_lines,
    ".parquet": _write_parquet,
}
