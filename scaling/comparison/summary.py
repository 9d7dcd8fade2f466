"""One optimizer against the baseline over all scales, and its trend with size."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from gnomon.scaling.comparison.multiple import p_value
from gnomon.scaling.comparison.resampling import NO_INTERVAL, interval
from gnomon.scaling.comparison.scale import family
from gnomon.scaling.comparison.speedup import CURVES, NOWHERE, Comparison, beyond


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
      sizes: Distinct model sizes that compare.
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
      label: the optimizer.
      comparisons: its comparisons, from `compare` with the same weights.

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
        sizes=len({c.scale.parameters for c in used}),
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
    )
