"""From a row a step to a row a run, and the curves of the runs."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.exchange.formats import Cells
from gnomon.experiments.exchange.schema import BY_NAME
from gnomon.experiments.exchange.values import as_number, as_text, read_cell

Curves = Mapping[str, Mapping[str, np.ndarray]]
APART = ("label", "seed", "params", "steps", "data", "model", "batch")
"""What tells runs apart where the table does not name them."""


def whole_runs(
    cells: Cells, metric: str, where: str, files: list[str] | None = None
) -> tuple[Cells, Curves]:
    """The runs of a table of steps.

    Args:
      cells: under the names of the format, ``step`` among them.
      metric: what ``loss`` is called in the curves.
      where: what is read, for errors.
      files: the file of each row, where there are several; no run is in two.

    Returns:
      A row a run, and by run ``step`` and the losses there. A run's loss is the last
      that it recorded, its learning rate the largest, any other column is as it
      was last; without ``steps``, its length is its last step.

    Raises:
      UserError: a step is no number, or stands twice in a run without a name.
    """
    named = "id" in cells
    apart = [name for name in cells if name in APART or _is_setting(name)]
    told = [cells[name] for name in (["id"] if named else apart)]
    told += [files] if files and not named else []
    runs: dict[tuple, dict[float, int]] = {}
    for row, key in enumerate(zip(*told, strict=True)):
        try:
            step = as_number(cells["step"][row], count=True)
        except ValueError as error:
            raise UserError(f"{where}, row {row + 1}: step: {error}") from error
        if math.isnan(step):
            continue
        steps = runs.setdefault(tuple(map(as_text, key)), {})
        if step in steps and not named:
            raise UserError(
                f"{where}: step {step:g} stands twice in a run, rows {steps[step] + 1}"
                f" and {row + 1}; say which column names the runs: --columns=id=COLUMN"
            )
        steps[step] = row  # of a step that was written twice the later row counts
    found: Cells = {name: [] for name in cells if name != "step"}
    found |= {name: [] for name in ("id", "steps", "status")}
    curves: dict[str, dict[str, np.ndarray]] = {}
    series = [name for name in cells if name == "loss" or name.startswith("final.")]
    for number, (key, steps) in enumerate(runs.items(), 1):
        at = np.array(sorted(steps))
        rows = [steps[step] for step in at]
        name = str(key[0]) if named else f"run {number}"
        curves[name] = {"step": at} | {
            metric if one == "loss" else one.removeprefix("final."): np.array(
                [_number(cells[one][row]) for row in rows]
            )
            for one in series
        }
        last = {one: _last(one, [cells[one][row] for row in rows]) for one in cells}
        last |= {"id": name}
        if at[-1] <= 0:
            raise UserError(
                f"{where}: the run {name!r} has no step above 0; leave its rows out"
            )
        if last.get("steps") is None:
            last["steps"] = float(at[-1])
        if "status" not in cells:
            last["status"] = None if _is_whole(at, last["steps"]) else "unfinished"
        for one, column in found.items():
            column.append(last[one])
    return found, curves


def _is_whole(at: np.ndarray, steps: Any) -> bool:
    """Whether a run was recorded to its end, but for less than a recording."""
    left = _number(steps, count=True) - at[-1]
    return bool(left <= 0 or (len(at) > 1 and left < np.diff(at).max()))


def _is_setting(name: str) -> bool:
    sections = ("model.", "data.", "optimizer.", "schedule.")
    return name.startswith(sections) or name == "weight_decay"


def _number(value: Any, count: bool = False) -> float:
    try:
        return as_number(value, count)
    except ValueError:
        return math.nan


def _last(name: str, values: list[Any]) -> Any:
    """What a run's rows say in one column."""
    known = [value for value in values if read_cell(value) is not None]
    if not known:
        return None
    if name == "learning_rate":
        rates = [_number(value) for value in known]
        return max((rate for rate in rates if not math.isnan(rate)), default=known[-1])
    if name in BY_NAME and BY_NAME[name].kind == "count":
        numbers = [_number(value, count=True) for value in known]
        return max((n for n in numbers if not math.isnan(n)), default=known[-1])
    return known[-1]
