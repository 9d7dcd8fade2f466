r"""Effective speedup over a baseline, with intervals from a bootstrap over seeds.

The effective speedup of an optimizer is the compute the baseline needs to reach the
optimizer's tuned loss, over the compute the optimizer used. The baseline's need is
read off its own tuned curve :math:`g` of loss against log compute:

.. math:: \log S = g^{-1}(L) - \log C

where :math:`g` is piecewise linear through the baseline's tuned losses after they
are made decreasing (`decreasing`), and continues with the slope of its last segment
beyond them. Where the baseline is itself tuned at the optimizer's scale, with loss
:math:`L_0` at compute :math:`C_0`,

.. math:: \log S = g^{-1}(L) - g^{-1}(L_0) + \log C_0 - \log C

which is the same number whenever the curve already decreases, and which is zero for
equal losses even where noise made it rise: equal is then never called different.
A loss curve is convex. Beyond the longest run, therefore, the last segment understates
a gain; between runs a straight line overstates it a little: with runs a factor 2 apart
a gain of 1.3 reads as 1.32, with runs a factor 1.4 apart as 1.30.

Where it is asked for and the baseline has four lengths or more, g is instead a power
law fitted to them (`gnomon.scaling.comparison.power`), and

.. math:: \log S = g^{-1}(L) - \log C

Noise of single lengths averages out; what the law misses at a length counts as a
difference there.

Seeds fix initialization and data order and are shared by all optimizers and scales,
so a bootstrap draw is a draw of seeds, the same for all cells with those seeds.
Within a draw every cell chooses its setting anew, so luck in the choice is part of
the interval.

Intervals are those of `gnomon.scaling.comparison.resampling`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gnomon.scaling.comparison.cell import Cell, why
from gnomon.scaling.comparison.isotonic import decreasing, needed
from gnomon.scaling.comparison.multiple import p_value
from gnomon.scaling.comparison.power import LEAST, fit_power
from gnomon.scaling.comparison.resampling import NO_INTERVAL, interval
from gnomon.scaling.comparison.scale import Scale, family

BEYOND = float(np.log(2.0))  # how far past the baseline's runs a number is given
NOWHERE = (float("inf"), float("-inf"))  # a reach that holds no number
CURVES = {"steps": "lengths", "scales": "sizes"}  # what a curve's runs differ in
SLACK = 1e-9  # rounding, in log compute


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One optimizer against the baseline at one scale; logs are natural.

    Attributes:
      label: The optimizer.
      scale: Where.
      reason: Why there is no speedup, or "".
      curve: ``steps`` (the baseline's curve over lengths of the same model) or
        ``scales`` (over models), or "" without a speedup.
      log_speedup: Estimate, NaN without one; beyond `limits` it is only a bound.
      log_interval: 95 % interval, infinite where there is none.
      limits: Log speedups at half the baseline's least and twice its largest
        compute; numbers outside are known only as bounds.
      reach: Log speedups at the baseline's least and largest compute; what lies
        outside is extrapolated.
      pooled: Whether the baseline's curve had to be made decreasing.
      power: Whether its curve is a power law.
      difference: Tuned loss minus the baseline's at this scale, NaN without one.
      difference_interval: Its 95 % interval.
      seeds: Smallest number of seeds behind it.
      draws: Bootstrap draws of the log speedup.
      p: Two-sided p-value of the log speedup, after `multiple.holm` over all
        comparisons of a report; NaN without one.
    """

    label: str
    scale: Scale
    reason: str
    curve: str = ""
    log_speedup: float = float("nan")
    log_interval: tuple[float, float] = NO_INTERVAL
    limits: tuple[float, float] = NO_INTERVAL
    reach: tuple[float, float] = NO_INTERVAL
    pooled: bool = False
    power: bool = False
    difference: float = float("nan")
    difference_interval: tuple[float, float] = NO_INTERVAL
    seeds: int = 0
    draws: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    p: float = float("nan")

    @property
    def bounded(self) -> bool:
        """Whether the estimate is only a bound."""
        return not self.limits[0] <= self.log_speedup <= self.limits[1]

    @property
    def extrapolated(self) -> bool:
        """Whether the estimate lies beyond the baseline's own runs."""
        return beyond(self.log_speedup, self.reach) != 0

    @property
    def interval_extrapolated(self) -> bool:
        """Whether an end of the interval does; an infinite one is no number."""
        ends = [end for end in self.log_interval if np.isfinite(end)]
        return any(beyond(end, self.reach) for end in ends)


def beyond(log: float, reach: tuple[float, float]) -> int:
    """On which side of a reach a number lies: -1, 1, or 0 inside.

    >>> beyond(0.5, (-0.1, 0.3)), beyond(0.2, (-0.1, 0.3)), beyond(0.2, NOWHERE)
    (1, 0, 1)
    """
    return int(log > reach[1] + SLACK) - int(
        reach[1] >= reach[0] and log < reach[0] - SLACK
    )


def _curve(cell: Cell, baseline: Sequence[Cell]) -> tuple[str, list[Cell]]:
    """The baseline's cells whose curve a cell is read against."""
    baseline = [b for b in baseline if np.isfinite(b.compute)]
    lengths = [b for b in baseline if b.scale.model == cell.scale.model]
    if len({b.compute for b in lengths}) > 1:
        return "steps", lengths
    peers = [b for b in baseline if family(b.scale) == family(cell.scale)]
    same_length = [b for b in peers if b.scale.steps == cell.scale.steps]
    chosen = same_length if len({b.compute for b in same_length}) > 1 else peers
    return "scales", chosen


def compare(
    cell: Cell,
    baseline: Sequence[Cell],
    weights: Mapping[tuple[int, ...], np.ndarray],
    power: bool = False,
) -> Comparison:
    """Compares a cell with the baseline.

    Args:
      cell: an optimizer at a scale.
      baseline: the baseline's cells at all scales, tuned or not.
      weights: from `seed_weights`, for the seeds of all these cells.
      power: fit a power law where the baseline has lengths enough.

    Returns:
      The comparison; without a number, and with a reason, where the cell or the
      baseline is not tuned or the baseline's curve has a single point.
    """
    tuned = [b for b in baseline if b.tuned is not None]
    here = [b for b in baseline if b.scale == cell.scale]
    own = next((b for b in tuned if b.scale == cell.scale), None)
    if cell.tuned is None:
        return Comparison(cell.label, cell.scale, f"{cell.label} {why(cell)}")

    def losses(one: Cell) -> np.ndarray:
        """The estimate in row 0, bootstrap draws below it."""
        n = len(one.seeds)
        return one.means(np.concatenate([np.full((1, n), 1 / n), weights[one.seeds]]))

    loss = losses(cell)
    result = Comparison(cell.label, cell.scale, "", seeds=len(cell.seeds))
    if own is not None:
        n = min(len(cell.seeds), len(own.seeds))
        gap = loss - losses(own)
        result = dataclasses.replace(
            result,
            difference=float(gap[0]),
            difference_interval=interval(gap[0], gap[1:], n),
            seeds=n,
        )
    name, points = _curve(cell, tuned)
    points = sorted(points, key=lambda b: b.compute)
    if len({b.compute for b in points}) < 2:
        return dataclasses.replace(result, reason=_no_curve(here, points))
    log_compute = np.log([b.compute for b in points])
    curve = np.stack([losses(b) for b in points], axis=1)
    power = power and name == "steps" and len(set(log_compute)) >= LEAST
    if power:
        # A floor is nowhere reached; what lies this far is only a bound anyway.
        ends = log_compute[0] - 2 * BEYOND, log_compute[-1] + 2 * BEYOND
        need = np.clip(fit_power(log_compute, curve).needed(loss), *ends)
    else:
        x, y = decreasing(log_compute, curve)
        need = needed(x, y, loss)
    if not np.isfinite(need[0]):
        reason = "the baseline's tuned loss does not fall with compute"
        return dataclasses.replace(result, reason=reason)
    shift = np.log(cell.compute)
    if own in points and not power:
        shift = needed(x, y, losses(own)) - np.log(own.compute) + shift
    logs = need - shift
    offset = float(need[0] - logs[0])
    seeds = min(len(c.seeds) for c in [cell, *points])
    return dataclasses.replace(
        result,
        curve=name,
        log_speedup=float(logs[0]),
        log_interval=interval(logs[0], logs[1:], seeds),
        limits=(
            float(log_compute[0]) - BEYOND - offset,
            float(log_compute[-1]) + BEYOND - offset,
        ),
        reach=(float(log_compute[0]) - offset, float(log_compute[-1]) - offset),
        pooled=not power and bool((np.diff(y[0]) >= 0).any()),
        power=power,
        seeds=seeds,
        draws=logs[1:],
        p=p_value(logs[0], logs[1:], seeds),
    )


def _no_curve(here: Sequence[Cell], points: Sequence[Cell]) -> str:
    if here and here[0].tuned is None:
        return f"the baseline {why(here[0])}"
    if here and not np.isfinite(here[0].compute):
        return "the compute of the baseline is not known"
    many = "one compute only" if points else "no compute"
    return (
        f"the baseline is tuned at {many}, so it has no curve of loss against"
        " compute; sweep further values of steps or sizes of the model"
    )
