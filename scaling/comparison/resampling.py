r"""Draws of seeds, and intervals from them.

The interval takes the 2.5 % and 97.5 % percentiles of the draws of :math:`\log S`
and widens their distance from the estimate by

.. math:: \sqrt{\frac{n}{n-1}} \; \frac{t_{0.975,\,n-1}}{z_{0.975}}

for :math:`n` seeds. For a mean, the bootstrap distribution has the plug-in variance
(divisor n) and its percentiles are those of a normal; the two factors put back the
unbiased variance and Student's quantile, so the interval becomes the t interval.
It is 2.69 for three seeds, 1.87 for four: few seeds carry little. Two seeds have
three distinct draws, their percentiles are the two seeds themselves, which lie
:math:`s / \sqrt n` from the mean; there the factor is Student's quantile alone, 12.71.

References:
  Hesterberg, T. (2015). What Teachers Should Know About the Bootstrap. The American
  Statistician 69(4), on expanded percentile intervals.
"""

from collections.abc import Sequence

import numpy as np
from scipy import special

DRAWS = 2000
LEVEL = 0.95
NO_INTERVAL = (float("-inf"), float("inf"))


def seed_weights(
    seed_sets: Sequence[tuple[int, ...]], draws: int = DRAWS
) -> dict[tuple[int, ...], np.ndarray]:
    """Bootstrap draws of the seeds, as weights of a mean.

    Cells with the same seeds share a draw and so stay paired. Cells whose seeds
    differ are drawn independently, which ignores the luck that a partial overlap
    shares and is therefore on the safe side.

    Args:
      seed_sets: the seeds of each cell; duplicates are welcome.
      draws: number of draws.

    Returns:
      For each distinct set of n seeds, ``[draws, n]`` weights with rows summing to 1.

    Example:
      >>> weights = seed_weights([(0, 1, 2)], draws=4)[0, 1, 2]
      >>> print(weights.shape, weights.sum(axis=1))
      (4, 3) [1. 1. 1. 1.]
    """
    weights = {}
    for seeds in set(seed_sets):
        # Seeded by the seeds' values: no number depends on the order of the cells.
        rng = np.random.default_rng([len(seeds), *(abs(seed) for seed in seeds)])
        n = len(seeds)
        weights[seeds] = rng.multinomial(n, np.full(n, 1 / n), size=draws) / n
    return weights


def widening(n: int, level: float = LEVEL) -> float:
    """How much a percentile interval over ``n`` seeds is too narrow.

    >>> [round(widening(n), 2) for n in (2, 3, 4, 10)]
    [12.71, 2.69, 1.87, 1.22]
    """
    tail = (1 + level) / 2
    student = special.stdtrit(n - 1, tail)
    if n == 2:
        return float(student)
    return float(np.sqrt(n / (n - 1)) * student / special.ndtri(tail))


def quantiles(
    draws: np.ndarray, lost: np.ndarray, level: float
) -> tuple[np.ndarray, np.ndarray]:
    """The ends of the middle of draws, along the first axis.

    Args:
      draws: the draws.
      lost: which of them count as both infinitely low and infinitely high.
      level: the share in the middle.
    """
    tail = (1 - level) / 2
    # Order statistics, not interpolation: some draws may be infinite.
    low = np.quantile(np.where(lost, -np.inf, draws), tail, axis=0, method="lower")
    high = np.quantile(np.where(lost, np.inf, draws), 1 - tail, axis=0, method="higher")
    return low, high


def interval(estimate: float, draws: np.ndarray, n: int) -> tuple[float, float]:
    """Widened percentile interval around an estimate.

    Args:
      estimate: the estimate, on a scale where its noise is roughly additive.
      draws: its bootstrap draws. A draw that is not finite counts as both
        infinitely low and infinitely high.
      n: seeds behind it. One seed has no interval.

    Returns:
      The two ends, infinite where the draws cannot bound the number.
    """
    if n < 2 or not np.isfinite(estimate):
        return NO_INTERVAL
    lost = ~np.isfinite(draws)
    ends = quantiles(draws, lost, LEVEL)
    wide = widening(n)
    # Choosing the setting anew shifts all draws; their spread is what matters, so it
    # is measured from their own center and laid around the estimate.
    center = np.mean(draws[~lost]) if not lost.all() else estimate
    low, high = (estimate + wide * (end - center) for end in ends)
    return float(low), float(high)
