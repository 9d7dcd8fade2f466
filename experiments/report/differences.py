"""The joint law of a report: what each optimizer makes of parameters and of tokens."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.cells import Table
from gnomon.scaling.comparison.scale import related
from gnomon.scaling.differences import Efficiencies, Efficiency, Exponents
from gnomon.scaling.efficiencies import fit_efficiencies
from gnomon.scaling.fit import Estimate
from gnomon.scaling.gap_holdout import SAME, GapHoldout

LEAST = 3  # sizes and lengths of the baseline that make a law
FEWEST = 2  # of another optimizer
COLUMNS = ("label", "params", "tokens", "loss", "seed")


class Standing(NamedTuple):
    """One optimizer beside the baseline.

    Attributes:
      label: The optimizer.
      worth: What it makes of parameters and of tokens.
      exponents: Its own exponents less the baseline's.
      speedup: In tokens, at `Differences.at`.
      time: Seconds a step over the baseline's; NaN where none are recorded.
      time_interval: Its 95 % interval, over sizes; NaN where one is recorded.
    """

    label: str
    worth: Efficiency
    exponents: Exponents
    speedup: Estimate
    time: float
    time_interval: tuple[float, float]

    @property
    def faster(self) -> Estimate:
        """The speedup in time; its interval is that of both factors, as independent."""
        with np.errstate(all="ignore"):  # an end may lie at 0 or beyond all bounds
            logs, time = np.log(np.array(self.speedup, float)), np.log(self.time)
            other = np.log(self.time_interval)[::-1] - time
            far = np.hypot(logs[1:] - logs[0], other)
            value = np.exp(logs[0] - time)
            ends = value * np.exp(np.array([-1, 1]) * far)
        low, high = np.where(np.isfinite(logs[1:]), ends, self.speedup[1:])
        return Estimate(float(value), float(low), float(high))


class Differences(NamedTuple):
    """A joint law and its check.

    Attributes:
      fit: The law.
      standings: Every other optimizer.
      held: How cheaper cells foretell the gaps of the largest budget; None where too
        few are left.
      at: Parameters and tokens that speedups are given at: where the baseline's loss is
        least at the largest budget.
      left_out: Optimizers that ran in too few cells.
      unit: What lengths are counted in.
    """

    fit: Efficiencies
    standings: Sequence[Standing]
    held: GapHoldout | None
    at: tuple[float, float]
    left_out: Sequence[str]
    unit: str = "steps"


def differences(table: Table, analysis: Analysis) -> Differences | None:
    """Fits the joint law to tuned losses, paired by cell and seed.

    Args:
      table: the run table the analysis was made from.
      analysis: the numbers of the report.

    Returns:
      The law. None where the baseline ran at fewer than three sizes or lengths, the
      others at fewer than two of either, or models are no sizes of one architecture.
    """
    tuned = [cell for cell in analysis.cells if cell.tuned is not None]
    if len({cell.scale.data for cell in tuned}) > 1:
        return None
    if not tuned or not related(cell.scale for cell in tuned):
        return None
    row = {str(trial): i for i, trial in enumerate(table["id"])}
    seconds = table.get("seconds", np.full(len(row), np.nan))
    runs: list[tuple[Any, ...]] = []
    for cell in tuned:
        assert cell.tuned is not None
        # What was read between the rates of the grid counts for every seed alike.
        between = cell.lowest[1] - cell.tuned.mean
        for seed, loss, trial in zip(
            cell.seeds, cell.tuned.losses, cell.tuned.trials, strict=True
        ):
            i = row[str(trial)]
            place = (float(table["parameters"][i]), float(table["units"][i]))
            steps = cell.scale.steps or math.nan
            pace = float(seconds[i]) / steps
            runs.append((cell.label, *place, float(loss) + between, seed, pace))
    runs = [run for run in runs if run[1] * run[2] > 0]  # as far as both are known
    base = {run[1:3] for run in runs if run[0] == analysis.baseline}
    if min(_spread(base), default=0) < LEAST:
        return None
    kept, left_out = [analysis.baseline], list[str]()
    for label in analysis.labels[1:]:
        own = {run[1:3] for run in runs if run[0] == label} & base
        enough = len(own) >= LEAST and min(_spread(own)) >= FEWEST
        (kept if enough else left_out).append(label)
    if len(kept) < 2:
        return None
    runs = [run for run in runs if run[0] in kept]
    columns: dict[str, Any] = dict(
        zip(COLUMNS, map(list, zip(*runs, strict=True)), strict=False)
    )
    fit = fit_efficiencies(
        **columns,
        baseline=analysis.baseline,
        searches=_searches(table, analysis, kept),
    )
    try:
        held = fit.holdout("compute")
    except ValueError:
        held = None
    at = _best(fit)
    standings = [
        Standing(
            name,
            fit.efficiency(name),
            fit.exponents(name),
            fit.speedup(name, params=at[0], tokens=at[1]),
            *_time(name, analysis.baseline, runs),
        )
        for name in kept[1:]
    ]
    unit = "steps" if analysis.source.swept else "tokens"  # batches may differ
    return Differences(fit, standings, held, at, left_out, unit)


def _best(fit: Efficiencies) -> tuple[float, float]:
    """Where the baseline's loss is least, of the cells of the largest budget."""
    runs = fit.runs
    spent = runs.params * runs.tokens
    losses = np.where(spent >= SAME * spent.max(), runs.table()[0], np.inf)
    best = int(np.nanargmin(losses))
    return float(runs.params[best]), float(runs.tokens[best])


def _spread(places: set[Any]) -> list[int]:
    """How many sizes and lengths there are."""
    return [len({place[axis] for place in places}) for axis in (0, 1)] if places else []


def _searches(
    table: Table, analysis: Analysis, labels: Sequence[str]
) -> dict[str, int]:
    """The most settings that an optimizer tried in a cell; {} where it is not told."""
    if "tried" in table:
        tried = {
            label: float(np.nanmax(table["tried"][table["label"] == label], initial=0))
            for label in labels
        }
        return (
            {label: int(n) for label, n in tried.items()} if all(tried.values()) else {}
        )
    if analysis.source.given:
        return {}
    return {
        label: max(len(cell.settings) for cell in analysis.cells if cell.label == label)
        for label in labels
    }


def _time(
    label: str, baseline: str, runs: Sequence[tuple[Any, ...]]
) -> tuple[float, tuple[float, float]]:
    """Seconds a step over the baseline's: geometric mean over sizes, and its interval.

    Of each size the longest run counts, which start-up burdens least. How much sizes
    differ tells how much of the time was the machine's own.
    """
    paces: dict[tuple[str, float], tuple[float, float]] = {}
    for name, size, length, _, _, pace in runs:
        if name in (label, baseline) and pace > 0:
            longest, least = paces.get((name, size), (0.0, math.inf))
            if length >= longest:
                least = min(pace, least) if length == longest else pace
                paces[name, size] = (length, least)
    logs = [
        math.log(paces[label, size][1] / paces[baseline, size][1])
        for name, size in paces
        if name == label and (baseline, size) in paces
    ]
    if not logs:
        return math.nan, (math.nan, math.nan)
    mean = float(np.mean(logs))
    if len(logs) < 2:
        return math.exp(mean), (math.nan, math.nan)
    half = stats.t.ppf(0.975, len(logs) - 1) * np.std(logs, ddof=1) / len(logs) ** 0.5
    with np.errstate(over="ignore"):
        return math.exp(mean), (float(np.exp(mean - half)), float(np.exp(mean + half)))
