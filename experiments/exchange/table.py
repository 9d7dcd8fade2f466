"""A run table of any origin, as the columns that reports and laws read."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.exchange.conversion import (
    FACTS,
    OWN,
    check_apart,
    columns_of,
    is_there,
    placed,
)
from gnomon.experiments.exchange.formats import Cells
from gnomon.experiments.exchange.renaming import parse_columns, renamed, unread
from gnomon.experiments.exchange.schema import VERSION
from gnomon.experiments.exchange.sources import cells_of
from gnomon.experiments.exchange.steps import Curves, whole_runs
from gnomon.experiments.exchange.told import compute_of, grids_given, notes_of
from gnomon.experiments.exchange.values import as_text
from gnomon.scaling import as_run_table


class RunTable(NamedTuple):
    """A run table.

    Attributes:
      name: Of the file.
      columns: As `gnomon.experiments.records.runs.table` gives them.
      curves: By run, ``step`` and the losses there; empty for a row a run.
      metric: What the losses are.
      report: ``baseline`` and ``interpolate``, where the table says them; ``unit`` of
        compute; ``given``, whether runs are taken as tuned for want of grids.
      notes: What a reader must know: what it does not tell.
      facts: Where it comes from.
    """

    name: str
    columns: Mapping[str, np.ndarray]
    curves: Curves
    metric: str
    report: Mapping[str, Any]
    notes: list[str]
    facts: Mapping[str, str]

    def fits(self) -> dict[str, np.ndarray]:
        """The finished runs under the names that law fits take.

        Raises:
          ValueError: None is finished and has a loss.
        """
        return as_run_table(self.columns, self.metric)

    @property
    def config(self) -> dict[str, Any]:
        """What the runs' configs have in common, as a config."""
        config: dict[str, Any] = {}
        for field, column in self.columns.items():
            values = {str(value) for value in column}
            section, dot, last = field.partition(".")
            if dot and len(values) == 1 and column[0] is not None:
                config.setdefault(section, {})[last] = column[0]
        return config


def load_table(path: Path, columns: str = "") -> RunTable:
    """Reads a run table of any origin.

    Args:
      path: a file that ends in .csv, .tsv, .jsonl or .parquet; a folder of such files,
        or of TensorBoard's events; or the folder of a sweep.
      columns: which of its columns are which (`gnomon.experiments.exchange.renaming`).

    Returns:
      The table, and what it does not tell.

    Raises:
      UserError: names the column, and the fix.
      FileNotFoundError: there is no such file.
    """
    where = f"--table={path}"
    raw = cells_of(path)
    renamings = parse_columns(columns)
    cells = renamed(raw, renamings, where)
    given = {name for name in cells if any(map(is_there, cells[name]))}
    _check_version(cells, where)
    metric = _metric(cells, where)
    curves: Curves = {}
    by_step = "step" in given
    if by_step:
        cells, curves = whole_runs(cells, metric, where, raw.get("file"))
    cells.pop("step", None)
    table, notes = columns_of(cells, metric, given, where)
    own = OWN in table
    if not own:
        table, curves, said = placed(table, curves)
        notes += said
    left = unread(raw, renamings)
    aligned = not by_step and len(table["id"]) == len(next(iter(raw.values())))
    check_apart(table, raw if aligned else {}, left, where)
    compute = compute_of(table)
    table |= {"compute": compute.values}
    if not own:
        notes = [*notes_of(table, given, by_step), compute.note, *notes]
    if left:
        notes.append(f"Columns that are not read: {', '.join(left)}.")
    facts = {"table": path.name, "sha256": _digest(path), "columns": columns}
    for name in FACTS:
        seen = Counter(as_text(value) for value in cells.get(name, ()))
        seen.pop(None, None)
        facts[name] = "; ".join(map(str, seen))
        if len(seen) > 1 and name != "fingerprint":
            notes.append(
                f"Results come from {len(seen)} different {name.rstrip('s')}s."
            )
    report = {
        "baseline": _said(table, "report.baseline") or "",
        "metric": metric,
        "interpolate": bool(_said(table, "tuning.interpolate")),
        "unit": compute.unit,
        "counted": compute.note,
        "given": not grids_given(table),
        "own": own,
    }
    facts = {name: value for name, value in facts.items() if value}
    return RunTable(path.stem, table, curves, metric, report, notes, facts)


def _check_version(cells: Cells, where: str) -> None:
    for value in cells.pop("schema", ()):
        if as_text(value) not in (None, str(VERSION)):
            raise UserError(
                f"{where}: schema {value}, and this gnomon reads {VERSION}; update"
                " gnomon, or drop the column if it means another thing"
            )


def _metric(cells: Cells, where: str) -> str:
    names = {as_text(value) for value in cells.pop("metric", ())} - {None}
    if len(names) > 1:
        raise UserError(
            f"{where}: column 'metric' names {len(names)} metrics; losses of one table"
            " are of one"
        )
    return str(names.pop()) if names else "loss"


def _said(table: Mapping[str, np.ndarray], name: str) -> Any:
    column = table.get(name)
    return None if column is None else column[0]


def _digest(path: Path) -> str:
    if not path.is_file():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
