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

Seeds fix initialization and data order and are shared by all optimizers and scales,
so a bootstrap draw is a draw of seeds, the same for all cells with those seeds.
Within a draw every cell chooses its setting anew, so luck in the choice is part of
the interval.

Intervals are those of `gnomon.experiments.report.resampling`.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gnomon.experiments.report.family import family
from gnomon.experiments.report.multiple import p_value
from gnomon.experiments.report.resampling import NO_INTERVAL, interval
from gnomon.experiments.report.tuning import Cell, Scale, why

BEYOND = float(np.log(2.0))  # how far past the baseline's runs a number is given
NOWHERE = (float("inf"), float("-inf"))  # a reach that holds no number
CURVES = {"steps": "lengths", "scales": "sizes"}  # what a curve's runs differ in
SLACK = 1e-9  # rounding, in log compute


def decreasing(log_compute: np.ndarray, loss: np.ndarray) -> tuple[np.ndarray, ...]:
    """The nearest decreasing curve: isotonic regression, pooled points merged.

    A run of points that rises is replaced by its centroid, repeated, so the result
    strictly decreases between distinct points and has an inverse.

    Args:
      log_compute: ``[points]``, rising.
      loss: ``[draws, points]``.

    Returns:
      Log compute and loss of the curve, both ``[draws, points]``.

    Example:
      >>> x, y = decreasing(np.array([0., 1., 2.]), np.array([[3., 1., 2.]]))
      >>> print(x, y)
      [[0.  1.5 1.5]] [[3.  1.5 1.5]]
    """
    points = loss.shape[1]
    sums = np.concatenate([np.zeros_like(loss[:, :1]), np.cumsum(loss, axis=1)], axis=1)
    fit = np.empty_like(loss)
    # Minimum over starts a <= i of the largest mean of a..b over ends b >= i.
    for i in range(points):
        starts = [
            np.max(
                [(sums[:, b + 1] - sums[:, a]) / (b + 1 - a) for b in range(i, points)],
                axis=0,
            )
            for a in range(i + 1)
        ]
        fit[:, i] = np.min(starts, axis=0)
    same = fit[:, :, None] == fit[:, None, :]
    centers = (same * log_compute).sum(axis=2) / same.sum(axis=2)
    return centers, fit


def needed(x: np.ndarray, y: np.ndarray, loss: np.ndarray) -> np.ndarray:
    """Log compute at which a decreasing curve reaches a loss.

    Args:
      x: ``[draws, points]`` from `decreasing`.
      y: ``[draws, points]`` from `decreasing`.
      loss: ``[draws]``.

    Returns:
      ``[draws]``; NaN where the curve is flat, so that no compute follows.

    Example:
      >>> x, y = decreasing(np.array([0., 1.]), np.array([[3., 2.]]))
      >>> print(needed(x, y, np.array([2.5])), needed(x, y, np.array([1.5])))
      [0.5] [1.5]
    """
    points = y.shape[1]
    row = np.arange(len(y))
    right = (y >= loss[:, None]).sum(axis=1)
    # Outside the curve take its first or last two distinct points.
    right = np.where(right == 0, (y >= y[:, :1]).sum(axis=1), right)
    last = (y > y[:, -1:]).sum(axis=1)
    right = np.where(right >= points, last, right)
    left = right - 1
    flat = (last == 0) | (left < 0)
    left, right = np.maximum(left, 0), np.minimum(right, points - 1)
    rise = y[row, left] - y[row, right]
    share = (y[row, left] - loss) / np.where(flat, 1.0, rise)
    found = x[row, left] + share * (x[row, right] - x[row, left])
    return np.where(flat, np.nan, found)


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
) -> Comparison:
    """Compares a cell with the baseline.

    Args:
      cell: An optimizer at a scale.
      baseline: The baseline's cells at all scales, tuned or not.
      weights: From `seed_weights`, for the seeds of all these cells.

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
    x, y = decreasing(log_compute, np.stack([losses(b) for b in points], axis=1))
    need = needed(x, y, loss)
    if not np.isfinite(need[0]):
        reason = "the baseline's tuned loss does not fall with compute"
        return dataclasses.replace(result, reason=reason)
    shift = np.log(cell.compute)
    if own in points:
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
        pooled=bool((np.diff(y[0]) >= 0).any()),
        seeds=seeds,
        draws=logs[1:],
        p=p_value(logs[0], logs[1:], seeds),
    )


def _no_curve(here: Sequence[Cell], points: Sequence[Cell]) -> str:
    if here and here[0].tuned is None:
        return f"the baseline {why(here[0])}"
    many = "one compute only" if points else "no compute"
    return (
        f"the baseline is tuned at {many}, so it has no curve of loss against"
        " compute; sweep further values of steps or sizes of the model"
    )


@dataclasses.dataclass(frozen=True)
class Summary:
    """One optimizer against the baseline over all scales.

    Attributes:
      label: The optimizer.
      reason: Why there is no overall number, or "".
      log_speedup: Mean log speedup over the comparable scales, each within its limits.
      log_interval: Its 95 % interval, of the same.
      scales: How many scales were compared, and of how many.
      bound: 1 where a scale entered as less than it is, so that the truth is more;
        -1 where one entered as more; 0 for a number.
      open: The same of the two ends of the interval. An end at which scales lie
        beyond their limits on both sides is infinite.
      extrapolated: At how many scales the estimate lies beyond the baseline's runs.
      stretched: At how many the estimate or an end of its interval does.
      beyond: Of what these runs are, ``lengths`` or ``sizes``, or ``runs`` for both.
      slope: Change of log speedup for each doubling of the parameters, comparing
        sizes of one architecture at equal length and data; NaN when fewer than two
        sizes compare.
      slope_interval: Its 95 % interval.
      sizes: Distinct model sizes behind the slope.
      seeds: Smallest number of seeds behind the numbers.
      p: Two-sided p-value of the log speedup, after `multiple.holm` over the
        optimizers of a report; NaN without one.
    """

    label: str
    reason: str
    log_speedup: float = float("nan")
    log_interval: tuple[float, float] = NO_INTERVAL
    scales: tuple[int, int] = (0, 0)
    bound: int = 0
    open: tuple[int, int] = (0, 0)
    extrapolated: int = 0
    stretched: int = 0
    beyond: str = ""
    slope: float = float("nan")
    slope_interval: tuple[float, float] = NO_INTERVAL
    sizes: int = 0
    seeds: int = 0
    p: float = float("nan")

    @property
    def bounded(self) -> bool:
        """Whether the estimate is only a bound."""
        return self.bound != 0

    @property
    def known(self) -> tuple[float, float]:
        """The interval that the runs vouch for: infinite where an end is open outward.

        >>> Summary("B", "", log_interval=(0.1, 0.5), open=(1, 1)).known
        (0.1, inf)
        """
        low, high = self.log_interval
        return (
            float("-inf") if self.open[0] < 0 else low,
            float("inf") if self.open[1] > 0 else high,
        )

    @property
    def decided(self) -> bool:
        """Whether the seeds give a verdict of any kind."""
        return not self.reason and self.seeds > 1 and self.known != NO_INTERVAL

    @property
    def reach(self) -> tuple[float, float]:
        """Of the estimates over all scales; empty where one is extrapolated."""
        return NOWHERE if self.extrapolated else NO_INTERVAL

    @property
    def interval_reach(self) -> tuple[float, float]:
        """The same of the intervals."""
        return NOWHERE if self.stretched else NO_INTERVAL

    @property
    def standing(self) -> tuple[bool, bool, float]:
        """Sorts the fastest first, those without bounds after, without a number last.

        The baseline's own would be ``(False, False, 0.0)``.
        """
        if self.reason:
            return True, True, 0.0
        return False, self.known == NO_INTERVAL, -self.log_speedup


def _ends(
    ends: tuple[float, float], limits: np.ndarray, used: Sequence[Comparison]
) -> tuple[tuple[float, float], tuple[int, int]]:
    """An interval of the mean, and on which sides its ends are open.

    An end holds the bound of each scale whose own interval ends beyond its limits.
    """
    if ends == NO_INTERVAL:
        return ends, (0, 0)
    found, opened = [], []
    for i, end in enumerate(ends):
        sides = {beyond(c.log_interval[i], c.limits) for c in used} - {0}
        if np.isfinite(end):  # widening may take it further than any draw
            end = float(np.clip(end, *limits))
        found.append(end if len(sides) < 2 else NO_INTERVAL[i])
        opened.append(next(iter(sides)) if len(sides) == 1 else 0)
    return (found[0], found[1]), (opened[0], opened[1])


def summarize(label: str, comparisons: Sequence[Comparison]) -> Summary:
    """The mean log speedup of one optimizer, and its trend with model size.

    Args:
      label: The optimizer.
      comparisons: Its comparisons, from `compare` with the same weights.

    Returns:
      The summary. A scale known only as a bound enters the mean at the bound, which
      makes the mean a bound; no trend is given then. Where one scale is more than
      its runs can tell and another less, nothing follows for the mean.
    """
    used = [c for c in comparisons if not c.reason]
    if not used:
        reasons = list(dict.fromkeys(c.reason for c in comparisons))
        return Summary(label, "; ".join(reasons), scales=(0, len(comparisons)))
    logs = np.stack([np.concatenate([[c.log_speedup], c.draws]) for c in used], axis=1)
    limits = np.array([c.limits for c in used])
    sides = {beyond(c.log_speedup, c.limits) for c in used} - {0}
    if len(sides) > 1:
        reason = "it is more than the runs can tell at one scale and less at another"
        return Summary(label, reason, scales=(0, len(comparisons)))
    n = min(c.seeds for c in used)
    mean = np.clip(logs, limits[None, :, 0], limits[None, :, 1]).mean(axis=1)
    kinds = {c.curve for c in used}
    ends, opened = _ends(interval(mean[0], mean[1:], n), limits.mean(axis=0), used)
    result = Summary(
        label=label,
        reason="",
        extrapolated=sum(c.extrapolated for c in used),
        stretched=sum(c.extrapolated or c.interval_extrapolated for c in used),
        beyond=CURVES[kinds.pop()] if len(kinds) == 1 else "runs",
        log_speedup=float(mean[0]),
        log_interval=ends,
        scales=(len(used), len(comparisons)),
        bound=next(iter(sides), 0),
        open=opened,
        seeds=n,
        p=p_value(mean[0], mean[1:], n),
    )
    size = np.log2([c.scale.parameters for c in used])
    strata = [(c.scale.steps, family(c.scale)) for c in used]
    for stratum in set(strata):
        inside = np.array([s == stratum for s in strata])
        size[inside] -= size[inside].mean()
    if sides or not (size**2).sum() > 1e-6:
        return result
    slope = logs @ size / (size @ size)
    return dataclasses.replace(
        result,
        slope=float(slope[0]),
        slope_interval=interval(slope[0], slope[1:], n),
        sizes=len({c.scale.parameters for c in used}),
    )
