"""Widens tuning grids until the best learning rate of each lies inside.

Whatever an optimizer is tuned by in a learning rate's place is widened in its place.

A grid whose best rate is its first or last has not found the optimum. Each round
adds to such a grid one rate beyond that end, at the grid's own ratio, with the seeds
and the other hyperparameters of the best setting. What is added follows from results
alone, so a rerun, and every process that works on a folder, adds the same trials.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import NamedTuple, get_args

import numpy as np

from gnomon.experiments.config import override, validate
from gnomon.experiments.config.ranges import OPTIMIZER
from gnomon.experiments.config.resolve import ConfigError, resolve
from gnomon.experiments.config.trials import Trial, make_trial
from gnomon.experiments.report.cells import Table, cells
from gnomon.scaling.comparison.cell import Cell, Setting
from gnomon.scaling.comparison.knob import Knob


class Added(NamedTuple):
    """A trial that widens a grid.

    Attributes:
      trial: the trial.
      value: of what the grid tunes.
    """

    trial: Trial
    value: float


def beyond(cell: Cell) -> tuple[Setting, float] | None:
    """The setting to continue from and the rate to add to a cell, None when done.

    Args:
      cell: a cell whose trials are done. Where no setting survived, rates go down.

    Returns:
      None too for a grid of a single rate, which has no ratio to go on by, and for
      what a sampler chose in an interval.
    """
    if cell.searched or cell.status not in ("edge", "diverged"):
        return None
    by_rate = {setting.learning_rate: setting for setting in cell.settings}
    rates = sorted(rate for rate in by_rate if rate == rate)
    if len(rates) < 2:
        return None
    best = cell.optimum
    if best is None or best.learning_rate == rates[0]:
        setting, before = best or by_rate[rates[0]], rates[1]
    else:
        setting, before = best, rates[-2]
    value = next_value(cell.knob, setting.learning_rate, before)
    return None if value is None else (setting, value)


def next_value(knob: Knob, last: float, before: float) -> float | None:
    """The value after ``last`` in a grid that came from ``before``.

    Args:
      knob: the field that is tuned.
      last: the value at the grid's edge.
      before: its neighbour inside.

    Returns:
      None where no such value is allowed.

    >>> next_value(Knob(), 4e-3, 2e-3), next_value(Knob(), 0.01, 0.02)
    (0.008, 0.005)
    >>> next_value(Knob("optimizer.momentum", fraction=True), 0.9, 0.5)
    0.98
    """
    end, earlier = knob.coordinate([last, before])
    with np.errstate(over="ignore"):
        found = float(f"{knob.value(2 * end - earlier):.4g}")
    allowed = OPTIMIZER.get(knob.field.rpartition(".")[2])
    if not np.isfinite(found) or found == last:
        return None
    if abs(found) > np.finfo(np.float32).max or (found and not np.float32(found)):
        return None
    return found if allowed is None or allowed.allows(found) else None


def additions(trials: Sequence[Trial], table: Table, metric: str) -> list[Added]:
    """The trials that one round of widening adds; none when every grid is wide enough.

    Args:
      trials: all trials of the sweep so far, in its order.
      table: their run table, `gnomon.experiments.records.runs.table`.
      metric: the final metric that is tuned.
    """
    by_id = {trial.id: trial for trial in trials}
    added = []
    for cell in cells(table, metric):
        if (found := beyond(cell)) is None:
            continue
        setting, value = found
        grid = [by_id[i].config for one in cell.settings for i in one.trials if i]
        placed = _placer(grid, cell.knob.field, value)
        if placed is None:
            continue
        for trial_id in setting.trials:
            if trial_id is not None:
                config = placed(by_id[trial_id].config)
                added.append(Added(make_trial(config), value))
    return added


def _placer(
    grid: Sequence[Mapping], field: str, value: float
) -> Callable[[Mapping], dict] | None:
    """What puts a value into a config of a grid, None where the field cannot take it.

    A field whose values in the grid are all whole takes a fraction only where the
    optimizer means a number by it; a rank or a count of steps has none to try.
    """
    *parents, last = field.split(".")

    def part(config: Mapping) -> Mapping:
        return reduce(lambda node, name: node[name], parents, config)

    numbers: set[type] = {type(part(config)[last]) for config in grid}
    if numbers == {int} and not _takes_fractions(part(grid[0]), last):
        if value != int(value):
            return None
        value = int(value)

    def placed(config: Mapping) -> dict:
        # The component anew: a whole number in it would want another one.
        return override(config, {".".join(parents): {**part(config), last: value}})

    try:
        validate(placed(grid[0]))
    except ConfigError:  # the optimizer has a bound of its own there
        return None
    return placed


def _takes_fractions(spec: Mapping, field: str) -> bool:
    if field in OPTIMIZER:
        return True
    try:
        parameters = inspect.signature(resolve(spec["name"])).parameters
        parameter = parameters[field]
    except (KeyError, TypeError, ValueError):  # no component, or none that tells
        return False
    if isinstance(parameter.default, int | float):
        return isinstance(parameter.default, float)
    return float in (parameter.annotation, *get_args(parameter.annotation))
