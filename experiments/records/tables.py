"""Run tables on disk: what a sweep found, small enough to commit.

A stored table is two files. ``NAME.csv`` has a row a trial and a column for each thing
that differs between trials, so that any tool can read it. ``NAME.json`` has what is the
same for all of them, and where they come from.
"""

import csv
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.shown import printable
from gnomon.experiments.records.files import (
    from_json,
    jsonable,
    read_json,
    write_json,
    write_text,
)
from gnomon.experiments.records.provenance import select, trace
from gnomon.experiments.records.runs import load_runs, table
from gnomon.scaling import as_run_table

# Differ between trials without saying what was trained, or are kept beside the rows.
_LEFT_OUT = ("report.", "tuning.", "log_every", "checkpoint_every", "tensorboard")
_KEPT = ("tuning.field", "tuning.search")  # which say how a trial is read


class Stored(NamedTuple):
    """A stored run table.

    Attributes:
      name: its file name without the ending.
      columns: as `gnomon.experiments.records.runs.table` gives them.
      report: ``baseline``, ``metric`` and ``interpolate`` of the sweep's report; of a
        table of others also how its compute was counted and what it tells of grids.
      facts: where it comes from: command, data, device, versions, times.
    """

    name: str
    columns: Mapping[str, np.ndarray]
    report: Mapping[str, Any]
    facts: Mapping[str, str]


def store(workdir: Path, folder: Path, name: str) -> Path:
    """Stores the run table of a sweep's folder.

    Args:
      workdir: the sweep's folder; every trial must be done.
      folder: where to write.
      name: file name without an ending.

    Returns:
      The path of the JSON file.

    Raises:
      UserError: trials are not done.
      FileNotFoundError: there is no such sweep.
    """
    path = workdir / "sweep.json"
    sweep = read_json(path) if path.exists() else {}
    runs, planned, notes = select(load_runs(workdir), sweep)
    provenance = trace(runs, planned, sweep, notes)
    if not provenance.complete:
        raise UserError(
            f"--add={workdir}: {provenance.done}; run the sweep's command again to"
            " finish it, then add it"
        )
    config = runs[0].config
    report = {
        "baseline": config.get("report", {}).get("baseline", ""),
        "metric": config.get("report", {}).get("metric", "validation_loss"),
        "interpolate": config.get("tuning", {}).get("interpolate", False),
    }
    # The page that lies in the folder may have been written with others.
    page = workdir / "report.json"
    if page.exists():
        report |= {key: read_json(page)[key] for key in ("baseline", "metric")}
    return write(Stored(name, table(runs), report, provenance.facts), folder)


def write(stored: Stored, folder: Path) -> Path:
    """Writes a table into a folder as `read` reads it.

    Returns:
      The path of the JSON file.
    """
    name, columns, report, facts = stored
    same: dict[str, Any] = {}
    rows: dict[str, list[Any]] = {}
    for field, column in columns.items():
        if field.startswith(_LEFT_OUT) and field not in _KEPT:
            continue
        values = [_plain(value) for value in column]
        if field != "id" and all(value == values[0] for value in values):
            same[field] = values[0]
        else:
            rows[field] = values
    # Cells of a column that holds more than text are JSON, to come back as they were.
    mixed = [field for field, values in rows.items() if _is_mixed(columns, field)]
    for field in mixed:
        rows[field] = [json.dumps(jsonable(value)) for value in rows[field]]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows)
    writer.writerows(zip(*rows.values(), strict=True))
    write_text(folder / f"{name}.csv", text.getvalue())
    about = {
        "report": dict(report),
        "facts": dict(facts),
        "text": [f for f in [*rows, *same] if columns[f].dtype == object],
        "mixed": mixed,
        "same": same,
        "rows": len(columns["id"]),
    }
    write_json(folder / f"{name}.json", about)
    return folder / f"{name}.json"


def read(path: Path) -> Stored:
    """Reads a stored table by the path of its JSON file.

    Raises:
      UserError: the two files do not belong together.
    """
    about = read_json(path)
    with path.with_suffix(".csv").open(newline="", encoding="utf-8") as file:
        heading, *lines = csv.reader(file)
    if len(lines) != about["rows"]:
        raise UserError(
            f"{path.with_suffix('.csv')} has {len(lines)} rows and {path.name} says"
            f" {about['rows']}: store the sweep again"
        )
    columns: dict[str, np.ndarray] = {}
    for field, values in zip(heading, zip(*lines, strict=True), strict=True):
        if field in about.get("mixed", ()):
            columns[field] = np.empty(len(lines), object)
            columns[field][:] = [from_json(json.loads(value)) for value in values]
        elif field in about["text"]:
            columns[field] = np.array([v or None for v in values], dtype=object)
        else:
            columns[field] = np.array([float(v) if v else math.nan for v in values])
    for field, value in about["same"].items():
        kind = object if field in about["text"] else float
        columns[field] = np.full(len(lines), value, dtype=kind)  # None becomes NaN
    return Stored(path.stem, columns, about["report"], about["facts"])


def _is_mixed(columns: Mapping[str, np.ndarray], field: str) -> bool:
    """Whether a column of text has cells that CSV would not give back as they are."""
    column = columns[field]
    return column.dtype == object and any(
        not (value is None or _is_text(value)) for value in column
    )


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != "" and printable(value) == value


def _plain(value: Any) -> Any:
    """A cell for CSV and JSON: None for NaN; numbers in full precision."""
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return int(value) if value.is_integer() and abs(value) < 2**53 else float(value)
    return value


def run_table(
    workdir: str | os.PathLike[str], metric: str = "validation_loss"
) -> dict[str, np.ndarray]:
    """The finished runs of a sweep as a table for law fits.

    Diverged and unfinished runs, and runs without the metric, are left out.
    ``batch`` is in tokens (units a step), like everything else in the table.

    Args:
      workdir: the sweep's folder.
      metric: which final metric becomes ``loss``.

    Returns:
      The columns of :mod:`gnomon.scaling.tables` that the sweep has.

    Raises:
      FileNotFoundError: The folder is missing or holds no trials.
      ValueError: No finished run recorded the metric.
    """
    return as_run_table(table(load_runs(workdir)), metric)
