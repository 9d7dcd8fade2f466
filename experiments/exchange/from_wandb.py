"""What wandb exports, as rows of runs: its tables, its histories, its panels."""

import ast
import json
import re
from typing import Any

from gnomon.experiments.exchange.formats import Cells, flat

_JOIN = " - "  # between a run and a metric, in the heading of a panel
_ENDS = ("__MIN", "__MAX")
_HISTORY = {"_step": "step", "_runtime": "seconds"}
_RUNS = {"_step": "steps", "Runtime": "seconds", "State": "status", "Name": "run"}
_BARE = re.compile(r"(?<![\w'\"])(nan|inf|-inf)(?![\w'\"])")


def plain_rows(cells: Cells) -> Cells:
    """Cells of any file; those that wandb wrote in a form of its own are laid out.

    A panel has a column ``RUN - METRIC`` for each run: it becomes rows with ``run``,
    ``step`` and the metric. A table of the API has mappings in ``config`` and
    ``summary``: they become ``config.NAME`` and ``summary.NAME``. In a
    history ``_step`` and ``_runtime`` are ``step`` and ``seconds``; in a table of runs
    ``Name``, ``State``, ``Runtime`` and ``_step`` are ``run``, ``status``, ``seconds``
    and ``steps``.

    >>> plain_rows({"Step": ["1"], "a - loss": ["2"], "a - loss__MIN": ["2"]})
    {'run': ['a'], 'step': ['1'], 'loss': ['2']}
    """
    if any(name.endswith(_ENDS) and _JOIN in name for name in cells):
        return _panel(cells)
    if {"config", "summary"} <= cells.keys():
        cells = _expanded(cells)
    known = _RUNS if {"Name", "State"} <= cells.keys() else _HISTORY
    found: Cells = {}
    for name, column in cells.items():
        new = known.get(name, name)
        found[name if new in cells else new] = column
    return found


def _panel(cells: Cells) -> Cells:
    axis = next(iter(cells))
    series = [n for n in cells if _JOIN in n and not n.endswith(_ENDS)]
    series = [n for n in series if not n.endswith(f"{_JOIN}_step")]
    metrics = dict.fromkeys(name.rpartition(_JOIN)[2] for name in series)
    step = "step" if axis.lower() in ("step", "_step") else axis
    found: Cells = {"run": [], step: []} | {metric: [] for metric in metrics}
    for run in dict.fromkeys(name.rpartition(_JOIN)[0] for name in series):
        own = {
            m: cells.get(f"{run}{_JOIN}{m}", [""] * len(cells[axis])) for m in metrics
        }
        for row, at in enumerate(cells[axis]):
            values = {metric: column[row] for metric, column in own.items()}
            if any(value not in ("", None) for value in values.values()):
                for name, value in ({"run": run, step: at} | values).items():
                    found[name].append(value)
    return found


def _expanded(cells: Cells) -> Cells:
    rows = []
    for row in range(len(cells["config"])):
        parts = {name: _mapping(cells[name][row]) for name in ("config", "summary")}
        rest = {n: column[row] for n, column in cells.items() if n not in parts}
        rows.append(rest | flat({n: part for n, part in parts.items() if part}))
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _mapping(value: Any) -> dict[str, Any]:
    """A mapping that was written as JSON or by Python."""
    text = str(value or "{}")
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(_BARE.sub(r"'\1'", text) if read is ast.literal_eval else text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(found, dict):
            return found
    return {}
