"""Log speedups written as factors: bounds, stars, and as many decimals as tell."""

import math
from collections.abc import Iterable

from gnomon.scaling.comparison.resampling import NO_INTERVAL
from gnomon.scaling.comparison.speedup import Comparison, beyond
from gnomon.scaling.comparison.summary import Summary

Pair = tuple[float, float]
STAR = "*"  # behind a number that is extrapolated


def estimate(
    log: float,
    interval: Pair,
    limits: Pair = NO_INTERVAL,
    reaches: tuple[Pair, Pair] = (NO_INTERVAL, NO_INTERVAL),
    bound: int = 0,
    bounds: tuple[int, int] = (0, 0),
) -> tuple[str, str]:
    """A log speedup and its interval as factors, both to the same decimals.

    Args:
      log: the speedup.
      interval: its ends.
      limits: what lies beyond is known only as a bound.
      reaches: of the number and of its interval; what lies outside is extrapolated
        and carries a star.
      bound: 1 where the number itself is one and the truth is more, -1 for less.
      bounds: the same of the ends.

    >>> estimate(0.2, (-0.1, 0.3)), estimate(0.004, (-0.01, 0.02))
    (('1.22x', '[0.90, 1.35]'), ('1.004x', '[0.990, 1.020]'))
    >>> estimate(2.0, (0.1, 3.0), limits=(-1.0, 1.0))
    ('more than 2.72x', '[1.11, >2.72]')
    >>> estimate(0.0, (-0.1, 0.1), reaches=((-0.2, 0.2), (-0.2, 0.0)))
    ('1.00x', '[0.90, 1.11*]')
    """
    inside = [math.exp(min(max(x, limits[0]), limits[1])) for x in (log, *interval)]
    places = _places(inside)
    number = "-"
    if not math.isnan(log):
        words = ("", "more than ", "less than ")[bound or beyond(log, limits)]
        star = STAR * bool(beyond(log, reaches[0]))
        number = f"{words}{inside[0]:.{places}f}x{star}"
    if interval == NO_INTERVAL:
        return number, "[no interval]"
    ends = []
    for end, factor, side in zip(interval, inside[1:], bounds, strict=True):
        sign = ("", ">", "<")[side or beyond(end, limits)]
        star = STAR * bool(beyond(end, reaches[1]))
        known = f"{sign}{factor:.{places}f}{star}"
        ends.append(known if 0 < factor < math.inf else "unbounded")
    return number, f"[{ends[0]}, {ends[1]}]"


def _places(factors: Iterable[float]) -> int:
    """Two decimals, more where two would show a factor as 1.00 that is not 1."""

    def enough(places: int) -> bool:
        return all(x == 1 or float(f"{x:.{places}f}") != 1 for x in factors)

    return next((places for places in (2, 3) if enough(places)), 4)


def overall(summary: Summary) -> tuple[str, str]:
    """The speedup over all scales and its interval, in tables and sentences."""
    return estimate(
        summary.log_speedup,
        summary.log_interval,
        reaches=(summary.reach, summary.interval_reach),
        bound=summary.bound,
        bounds=summary.open,
    )


def at_scale(one: Comparison) -> tuple[str, str]:
    """The speedup at one scale and its interval."""
    reaches = (one.reach, one.reach)
    return estimate(one.log_speedup, one.log_interval, one.limits, reaches)


def slope(summary: Summary) -> tuple[str, str]:
    """What a doubling of the parameters multiplies the speedup by."""
    reaches = (summary.reach, summary.interval_reach)
    return estimate(summary.slope, summary.slope_interval, reaches=reaches)
