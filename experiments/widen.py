"""Widens tuning grids until the best learning rate of each lies inside.

Whatever an optimizer is tuned by in a learning rate's place is widened in its place.

A grid whose best rate is its first or last has not found the optimum. Each round
adds to such a grid one rate beyond that end, at the grid's own ratio, with the seeds
and the other hyperparameters of the best setting. What is added follows from results
alone, so a rerun, and every process that works on a folder, adds the same trials.
"""

from collections.abc import Sequence
from typing import NamedTuple

from gnomon.experiments.config import override
from gnomon.experiments.report.tuning import Cell, Setting, Table, cells
from gnomon.experiments.trials import Trial, make_trial


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
      None too for a grid of a single rate, which has no ratio to go on by.
    """
    if cell.status not in ("edge", "diverged"):
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
    value = cell.knob.beyond(setting.learning_rate, before)
    return None if value is None else (setting, value)


def additions(trials: Sequence[Trial], table: Table, metric: str) -> list[Added]:
    """The trials that one round of widening adds; none when every grid is wide enough.

    Args:
      trials: all trials of the sweep so far, in its order.
      table: their run table, `gnomon.experiments.runs.table`.
      metric: the final metric that is tuned.
    """
    by_id = {trial.id: trial for trial in trials}
    added = []
    for cell in cells(table, metric):
        if (found := beyond(cell)) is None:
            continue
        setting, value = found
        for trial_id in setting.trials:
            if trial_id is not None:
                config = override(by_id[trial_id].config, {cell.knob.field: value})
                added.append(Added(make_trial(config), value))
    return added


def widened(trials: Sequence[Trial], table: Table, metric: str) -> list[Trial]:
    """The trials of `additions`."""
    return [added.trial for added in additions(trials, table, metric)]
