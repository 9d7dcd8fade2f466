"""From the cells of a table to the columns that reports and laws read."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np

from gnomon.experiments.config.resolve import did_you_mean
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.shown import printable
from gnomon.experiments.exchange.formats import Cells
from gnomon.experiments.exchange.schema import BY_NAME
from gnomon.experiments.exchange.steps import Curves
from gnomon.experiments.exchange.values import as_number, as_text, read_cell
from gnomon.experiments.records.direction import with_errors
from gnomon.experiments.records.runs import as_column

OWN = "tuning.widen"  # what a sweep's config has, and no other table
STATUSES = ("finished", "diverged", "unfinished")
_OTHERS = {"complete": 0, "completed": 0, "done": 0, "success": 0, "succeeded": 0}
_OTHERS |= {"ok": 0, "nan": 1, "crashed": 2, "failed": 2, "killed": 2, "running": 2}
_OTHERS |= {"preempted": 2, "pending": 2, "preempting": 2, "queued": 2}
FACTS = ("device", "versions", "fingerprint")
# Say what came of a run, and not which run it is.
_RESULTS = ("id", "status", "compute", "seconds", "tried", "units", "final.")


def is_there(value: Any) -> bool:
    """Whether a cell holds anything."""
    return read_cell(value) is not None


def columns_of(
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
    labels = [None if label is None else printable(label) for label in labels]
    if None in labels:
        raise UserError(
            f"{where}, row {labels.index(None) + 1}: column 'label' is empty"
        )
    found["label"] = as_column(labels)
    found["seed"], said = _seeds(cells.get("seed", [None] * rows))
    notes += said
    for name, values in cells.items():
        column = BY_NAME.get(name)
        if name in ("id", "label", "seed", "status", "loss", *FACTS):
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


def placed(
    table: dict[str, np.ndarray], curves: Curves
) -> tuple[dict[str, np.ndarray], Curves, list[str]]:
    """The runs whose place is known, where others have one, and a note on the rest."""
    known = np.ones(len(table["label"]), bool)
    for name in ("steps", "tokens", "model.params"):
        column = table.get(name, np.zeros(0))
        if np.isfinite(column).any():
            known &= np.isfinite(column)
    if known.all() or not known.any():
        return table, curves, []
    lost = int((~known).sum())
    plural = "s are" if lost > 1 else " is"
    note = f"{lost} run{plural} left out, without a size or length that others have."
    kept = set(table["id"][known])
    curves = {name: curve for name, curve in curves.items() if name in kept}
    return {name: column[known] for name, column in table.items()}, curves, [note]


def _numbers(values: list[Any], name: str, count: bool, where: str) -> np.ndarray:
    found = np.empty(len(values))
    for row, value in enumerate(values):
        try:
            found[row] = as_number(value, count)
        except (ValueError, TypeError) as error:
            fix = "; a count may be written as 130M or 1.3e8" if count else ""
            if re.fullmatch(r"\s*-?\d+,\d+\s*", str(value)):
                fix = "; decimals take a point"
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
            lost += not is_there(raw[row])
            text = "diverged" if is_there(raw[row]) else "unfinished"
        statuses.append(text)
    plural = "s have" if lost > 1 else " has"
    note = f"{lost} run{plural} no loss, and no status says why: taken as unfinished."
    return as_column(statuses), [note] if lost else []


def check_apart(
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
                " (--columns=optimizer.NAME=COLUMN); repeats may take a run's name as"
                " the seed"
            )
        seen[key] = row
