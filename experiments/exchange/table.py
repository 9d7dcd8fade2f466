"""A run table of any origin, as the columns that reports and laws read."""

import hashlib
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gnomon.experiments.config.resolve import did_you_mean
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.exchange.formats import Cells
from gnomon.experiments.exchange.renaming import parse_columns, renamed, unread
from gnomon.experiments.exchange.schema import BY_NAME, VERSION
from gnomon.experiments.exchange.sources import cells_of
from gnomon.experiments.exchange.steps import Curves, whole_runs
from gnomon.experiments.exchange.told import compute_of, grids_given, notes_of
from gnomon.experiments.exchange.values import as_number, as_text, read_cell
from gnomon.experiments.records.direction import with_errors
from gnomon.experiments.records.runs import as_column
from gnomon.scaling import as_run_table

OWN = "tuning.widen"  # what a sweep's config has, and no other table
STATUSES = ("finished", "diverged", "unfinished")
_OTHERS = {"complete": 0, "completed": 0, "done": 0, "success": 0, "succeeded": 0}
_OTHERS |= {"ok": 0, "nan": 1, "crashed": 2, "failed": 2, "killed": 2, "running": 2}
_OTHERS |= {"preempted": 2, "pending": 2, "preempting": 2, "queued": 2}
_FACTS = ("device", "versions", "fingerprint")
# Say what came of a run, and not which run it is.
_RESULTS = ("id", "status", "compute", "seconds", "tried", "units", "final.")


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
    given = {name for name in cells if any(map(_is_there, cells[name]))}
    _check_version(cells, where)
    metric = _metric(cells, where)
    curves: Curves = {}
    by_step = "step" in given
    if by_step:
        cells, curves = whole_runs(cells, metric, where, raw.get("file"))
    cells.pop("step", None)
    table, notes = _columns(cells, metric, given, where)
    left = unread(raw, renamings)
    _check_apart(table, raw if not by_step else {}, left, where)
    compute = compute_of(table)
    own = OWN in table
    table |= {"compute": compute.values}
    if not own:
        notes = [*notes_of(table, given, by_step), compute.note, *notes]
    if left:
        notes.append(f"Columns that are not read: {', '.join(left)}.")
    facts = {"table": path.name, "sha256": _digest(path), "columns": columns}
    for name in _FACTS:
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


def _is_there(value: Any) -> bool:
    return read_cell(value) is not None


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


def _columns(
    cells: Cells, metric: str, given: set[str], where: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Columns as of `gnomon.experiments.records.runs.table`, and notes."""
    rows = len(cells["label"])
    notes: list[str] = []
    found: dict[str, np.ndarray] = {}
    ids = [
        as_text(v) or f"row {i}"
        for i, v in enumerate(cells.get("id", [None] * rows), 1)
    ]
    if twice := next((name for name, n in Counter(ids).items() if n > 1), None):
        raise UserError(
            f"{where}: the run {twice!r} has {ids.count(twice)} rows; with a row a step"
            " say which column has the steps: --columns=step=COLUMN; else leave the"
            " names unread: --columns=id="
        )
    found["id"] = as_column(ids)
    labels = [as_text(value) for value in cells["label"]]
    if None in labels:
        raise UserError(
            f"{where}, row {labels.index(None) + 1}: column 'label' is empty"
        )
    found["label"] = as_column(labels)
    found["seed"], said = _seeds(cells.get("seed", [None] * rows))
    notes += said
    for name, values in cells.items():
        column = BY_NAME.get(name)
        if name in ("id", "label", "seed", "status", "loss", *_FACTS):
            continue
        if column is not None and column.kind != "text":
            found[column.field] = _numbers(values, name, column.kind == "count", where)
        elif name.startswith("final."):
            found[name] = _numbers(values, name, False, where)
        else:
            field = column.field if column is not None else name
            found[field] = as_column([read_cell(value) for value in values])
    if "loss" in cells:
        found[f"final.{metric}"] = _numbers(cells["loss"], "loss", False, where)
    found["status"], said = _statuses(cells, found, metric, where)
    notes += said
    for name in ("parameters", "units", "seconds"):
        found.setdefault(name, np.full(rows, np.nan))
    for name in ("parameters", "units", "steps"):
        if (found.get(name, np.ones(1)) <= 0).any():
            raise UserError(
                f"{where}: column {name!r} has a number that is not above 0"
            )
    sized = any(n.startswith("model.") and n != "model.name" for n in found)
    if np.isfinite(found["parameters"]).any() and not (sized or OWN in found):
        found["model.params"] = found["parameters"]
    if "steps" not in given and "step" not in given:
        found.pop("steps", None)
        if "tokens" in given:
            found["tokens"] = found["units"]
    finals = {name[6:]: found[name] for name in found if name.startswith("final.")}
    for name, column in with_errors(finals).items():
        found[f"final.{name}"] = column
    return found, notes


def _numbers(values: list[Any], name: str, count: bool, where: str) -> np.ndarray:
    found = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            found[row] = as_number(value, count)
        except (ValueError, TypeError) as error:
            fix = "; a count may be written as 130M or 1.3e8" if count else ""
            raise UserError(f"{where}, row {row + 1}: {name}: {error}{fix}") from error
    return found


def _seeds(values: list[Any]) -> tuple[np.ndarray, list[str]]:
    """Seeds as whole numbers; those that are names are numbered, 0 where none is."""
    texts = [as_text(value) for value in values]
    known = [text for text in texts if text is not None]
    if all(text.lstrip("-").isdecimal() and len(text) < 16 for text in known):
        return np.array([float(text or 0) for text in texts]), []
    names = sorted(set(known))
    numbers = [0.0 if text is None else float(names.index(text) + 1) for text in texts]
    return np.array(numbers), ["Seeds are names: runs with equal names are paired."]


def _statuses(
    cells: Cells, found: Mapping[str, np.ndarray], metric: str, where: str
) -> tuple[np.ndarray, list[str]]:
    losses = found.get(f"final.{metric}", np.zeros(len(cells["label"])))
    raw = cells.get("loss", losses)
    statuses, lost = [], 0
    for row, value in enumerate(cells.get("status", [None] * len(losses))):
        text = (as_text(value) or "").lower()
        if text in _OTHERS:
            text = STATUSES[_OTHERS[text]]
        if text and text not in STATUSES:
            hint = did_you_mean(text, [*STATUSES, *_OTHERS])
            raise UserError(
                f"{where}, row {row + 1}: status {value!r} is not known{hint}"
            )
        if not text and math.isfinite(losses[row]):
            text = "finished"
        elif not text:
            lost += not _is_there(raw[row])
            text = "diverged" if _is_there(raw[row]) else "unfinished"
        statuses.append(text)
    plural = "s have" if lost > 1 else " has"
    note = f"{lost} run{plural} no loss, and no status says why: taken as unfinished."
    return as_column(statuses), [note] if lost else []


def _check_apart(
    table: Mapping[str, np.ndarray], raw: Cells, left: list[str], where: str
) -> None:
    """Refuses two runs that nothing tells apart: neither seeds nor settings."""
    names = [name for name in table if not name.startswith(_RESULTS)]
    seen: dict[tuple, int] = {}
    for row in range(len(table["label"])):
        key = tuple(str(table[name][row]) for name in names)
        if key in seen:
            first = seen[key]
            differ = [n for n in left if n in raw and raw[n][first] != raw[n][row]]
            hint = f"; they differ in {', '.join(map(repr, differ))}" if differ else ""
            first_name, name = table["id"][first], table["id"][row]
            raise UserError(
                f"{where}: nothing tells {first_name} from {name}, both"
                f" {table['label'][row]} of one size and length{hint}; say which column"
                " is the seed (--columns=seed=COLUMN) or a setting"
                " (--columns=optimizer.NAME=COLUMN)"
            )
        seen[key] = row


def _said(table: Mapping[str, np.ndarray], name: str) -> Any:
    column = table.get(name)
    return None if column is None else column[0]


def _digest(path: Path) -> str:
    if not path.is_file():
        return ""
    return hashlib.sha256(path.read_bytes()).hexdigest()[:12]
