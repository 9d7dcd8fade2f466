"""Lengthens the baseline until its runs hold every speedup between them.

A speedup is read off the baseline's own losses over its lengths. Where it, or an end of
its interval, lies beyond the longest or the shortest, it is extrapolated. Each round
adds to such a model one length of the baseline at that end, at the ratio of the last
two lengths there (a factor 1.4 where it ran at one), with the settings and seeds of the
length next to it. What is added follows from results alone, as in
`gnomon.experiments.tuning.widen`.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from gnomon.experiments.config.changes import override
from gnomon.experiments.config.trials import Trial, make_trial
from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.report.cells import Table
from gnomon.scaling.comparison.cell import Cell
from gnomon.scaling.comparison.speedup import Comparison, beyond

RATIO = 1.4  # between the lengths of a baseline that has one


def wanted(one: Comparison) -> set[int]:
    """The ends at which a comparison wants a further length: -1, 1, both or none.

    Example:
      >>> from gnomon.scaling.comparison.scale import Scale
      >>> one = Comparison("B", Scale("", (), (), 100.0, 1e4), "", "steps",
      ...     log_speedup=0.3, log_interval=(0.1, 0.5), reach=(-0.3, 0.4))
      >>> wanted(one)
      {1}
    """
    if one.curve == "steps":
        numbers = [one.log_speedup, *one.log_interval]
        return {beyond(x, one.reach) for x in numbers if np.isfinite(x)} - {0}
    # A model that ran at one length has no curve of its own. Lower losses than the
    # baseline's are those of a longer run.
    return set() if np.isnan(one.difference) else {1 if one.difference < 0 else -1}


def further(lengths: Iterable[float], side: int) -> int:
    """The length to add beyond the longest (1) or the shortest (-1).

    >>> further([140, 200, 280], 1), further([140, 200, 280], -1), further([200], 1)
    (392, 98, 280)
    """
    end, *others = sorted(lengths, reverse=side > 0)
    ratio = end / others[0] if others else RATIO**side
    return max(1, round(end * ratio))


def lengthened(
    trials: Sequence[Trial],
    table: Table,
    baseline: str,
    metric: str,
    interpolate: bool = False,
) -> list[Trial]:
    """The trials that one round adds; none when the baseline is long enough.

    Args:
      trials: all trials of the sweep so far.
      table: their run table, `gnomon.experiments.records.runs.table`.
      baseline: its label, "" for the first trial's.
      metric: the final metric that is compared.
      interpolate: whether optima are read between the rates.
    """
    analysis = analyze(table, baseline, metric, interpolate)
    base = [cell for cell in analysis.cells if cell.label == analysis.baseline]
    ends = dict.fromkeys(
        (one.scale.model, side)
        for one in analysis.comparisons
        for side in sorted(wanted(one))
    )
    by_id = {trial.id: trial for trial in trials}
    added: dict[str, Trial] = {}
    for model, side in ends:
        own = [cell for cell in base if cell.scale.model == model]
        steps = further({cell.scale.steps for cell in own}, side)
        nearest = (max if side > 0 else min)(own, key=lambda cell: cell.scale.steps)
        for trial in _repeated(nearest, by_id, steps):
            if trial.id not in by_id:
                added[trial.id] = trial
    return list(added.values())


def _repeated(cell: Cell, by_id: dict[str, Trial], steps: int) -> list[Trial]:
    """A cell's trials at another length."""
    return [
        make_trial(override(by_id[trial].config, {"steps": steps}))
        for setting in cell.settings
        for trial in setting.trials
        if trial is not None
    ]
