"""Which column of a table is which of the format: ``--columns label=optimizer,...``.

``NAME=COLUMN`` reads a column under a name of the format, ``NAME=1e6*COLUMN`` its
numbers times a factor, ``NAME='text'`` or ``NAME=12`` the same for every row, and
``NAME=`` leaves a column unread.
"""

import csv
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from gnomon.experiments.config.resolve import did_you_mean
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.exchange.formats import Cells
from gnomon.experiments.exchange.schema import BY_NAME, NEEDED, SECTIONS, guess, is_read
from gnomon.experiments.exchange.values import as_number, read_cell

_FACTOR = re.compile(r"\s*([\d.]+(?:[eE][+-]?\d+)?)\s*\*\s*(.+)")
_CONSTANT = re.compile(r"'[^']*'|[+-]?[\d.]+(?:[eE][+-]?\d+)?")


class Renaming(NamedTuple):
    """One entry of ``--columns``.

    Attributes:
      name: Of the format.
      source: What stands behind the equals sign.
    """

    name: str
    source: str


def parse_columns(text: str) -> list[Renaming]:
    """Reads ``--columns``.

    Raises:
      UserError: names the entry.

    >>> parse_columns("label=optimizer,params=1e6*size_m")[1]
    Renaming(name='params', source='1e6*size_m')
    """
    found: list[Renaming] = []
    for part in next(csv.reader([text], skipinitialspace=True)) if text.strip() else ():
        name, equals, source = (word.strip() for word in part.partition("="))
        if not equals:
            raise UserError(
                f"--columns={part}: write NAME=COLUMN, such as label={part}"
            )
        if not is_read(name) or name in SECTIONS:
            known = [*BY_NAME, *(f"{section}NAME" for section in SECTIONS)]
            hint = did_you_mean(name, known)
            raise UserError(
                f"--columns={part}: {name!r} is no column of a run table{hint}"
            )
        if any(name == other.name for other in found):
            raise UserError(f"--columns={part}: {name!r} is given twice; give it once")
        found.append(Renaming(name, source))
    return found


def renamed(cells: Cells, renamings: Sequence[Renaming], where: str) -> Cells:
    """The columns that are read, under the names of the format.

    Args:
      cells: as a file has them.
      renamings: from `parse_columns`.
      where: what is read, for errors.

    Raises:
      UserError: names the column and the fix.
    """
    taken = {one.name for one in renamings} | {one.source for one in renamings}
    found = {
        name: column
        for name, column in cells.items()
        if is_read(name) and name not in taken
    }
    for one in renamings:
        if one.source:
            found[one.name] = _column(cells, one, where)
    _check_needed(found, cells, where)
    return found


def unread(cells: Cells, renamings: Sequence[Renaming]) -> list[str]:
    """The columns of a file that are not read."""
    used = {_source(one.source, cells)[1] for one in renamings}
    named = {one.name for one in renamings}
    return [
        name
        for name in cells
        if name not in used and not (is_read(name) and name not in named)
    ]


def _source(text: str, cells: Cells) -> tuple[str, str]:
    """A factor, "" for none, and a column."""
    found = None if text in cells else _FACTOR.fullmatch(text)
    return (found[1], found[2]) if found else ("", text)


def _column(cells: Cells, one: Renaming, where: str) -> list[Any]:
    rows = len(next(iter(cells.values())))
    factor, source = _source(one.source, cells)
    if source in cells:
        column = cells[source]
        if not factor:
            return column
        try:
            return [as_number(value, count=True) * float(factor) for value in column]
        except ValueError as error:
            raise UserError(f"{where}: column {source!r}: {error}") from error
    if _CONSTANT.fullmatch(source):
        quoted = source.startswith("'")
        return [source[1:-1] if quoted else read_cell(source)] * rows
    hint = did_you_mean(source, list(cells))
    raise UserError(
        f"--columns={one.name}={one.source}: {where} has no column {source!r}{hint}"
    )


def _check_needed(found: Cells, cells: Cells, where: str) -> None:
    """Refuses a table without names of optimizers or without losses."""
    missing = [
        name
        for name in NEEDED
        if name not in found
        and not (name == "loss" and any(other.startswith("final.") for other in found))
    ]
    if not missing:
        return
    guesses = {name: guess(name, list(cells)) for name in missing}
    said = " and ".join(f"{name!r} ({BY_NAME[name].meaning})" for name in missing)
    known = [f"{name}={there}" for name, there in guesses.items() if there]
    fix = f"; did you mean --columns={','.join(known)}?" if known else ""
    if not fix or len(known) < len(missing):
        fix += f" there are: {', '.join(cells)}; name one by --columns=NAME=COLUMN,"
        fix += " or --columns=\"NAME='word'\" for every row"
        fix = fix if fix.startswith(";") else f";{fix}"
    plural = "s" if len(missing) > 1 else ""
    raise UserError(f"{where}: no column{plural} {said}{fix}")
