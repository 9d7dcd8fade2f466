r"""Verdicts that hold together: correction for looking at several comparisons.

With many comparisons at 95 % each, some differ by luck. Holm's procedure sorts the m
p-values and raises the k-th smallest to

.. math:: \tilde p_{(k)} = \max_{j \le k} \min(1, (m - j + 1) \, p_{(j)})

What stays below 0.05 may be claimed together: the chance that any such claim is wrong
is at most 5 %, however the comparisons depend on each other. (SciPy corrects the false
discovery rate alone, so the few lines of Holm's procedure stand here.)

References:
  Holm, S. (1979). A Simple Sequentially Rejective Multiple Test Procedure.
  Scandinavian Journal of Statistics 6(2).
"""

import math
from collections.abc import Sequence

import numpy as np
from scipy import special


def p_value(estimate: float, draws: np.ndarray, n: int) -> float:
    r"""Two-sided p-value of an estimate against 0.

    .. math:: p = 2 \, P\left( T_{n-1} > \frac{|\hat\theta|}{s_*}
              \sqrt{\frac{n-1}{n}} \right)

    with :math:`s_*` the standard deviation of the bootstrap draws: the same
    correction for n seeds that widens the interval.

    Args:
      estimate: the estimate.
      draws: its bootstrap draws over seeds.
      n: seeds behind it.

    Returns:
      NaN for fewer than two seeds or no estimate; 1 where a draw has no bound.

    Example:
      >>> rng = np.random.default_rng(0)
      >>> print(f"{p_value(0.3, 0.1 * rng.standard_normal(9000), n=10):.3f}")
      0.019
    """
    if n < 2 or not math.isfinite(estimate):
        return math.nan
    if not np.isfinite(draws).all():
        return 1.0
    error = float(np.std(draws)) * math.sqrt(n / (n - 1))
    if error == 0:
        return 0.0 if estimate else 1.0
    return float(2 * special.stdtr(n - 1, -abs(estimate) / error))


def holm(p: Sequence[float]) -> list[float]:
    """Adjusts the p-values of one family.

    Args:
      p: the p-values; a NaN is no comparison, and does not count.

    Returns:
      Adjusted values in the same order.

    Example:
      >>> holm([0.01, 0.04, float("nan"), 0.03])
      [0.03, 0.06, nan, 0.06]
    """
    found = [math.nan] * len(p)
    ordered = sorted((value, i) for i, value in enumerate(p) if not math.isnan(value))
    largest = 0.0
    for rank, (value, i) in enumerate(ordered):
        largest = max(largest, min(1.0, (len(ordered) - rank) * value))
        found[i] = largest
    return found
