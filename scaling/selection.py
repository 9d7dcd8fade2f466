r"""How much a best of n flatters: the bias of searches of unequal size.

The least of n losses that differ by noise :math:`\sigma` alone lies
:math:`\sigma m_n` below their mean, with :math:`m_n` the expected greatest of n
standard normal numbers. That is the most: where settings truly differ, few of them
compete for the best. An optimizer that was searched more is therefore flattered, beside
another, by between nothing and the difference of the two.

References:
  Dodge, J. et al. (2019). Show Your Work: Improved Reporting of Experimental Results.
"""

import numpy as np
from scipy import special


def expected_best(n: int) -> float:
    """The expected greatest of n standard normal numbers.

    >>> [round(expected_best(n), 3) for n in (1, 2, 10, 100)]
    [0.0, 0.564, 1.539, 2.508]
    """
    if n < 1:
        raise ValueError(f"n={n}: a search has one run at least")
    x = np.linspace(-10.0, 10.0, 4001)
    density = np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi)
    return float(np.trapezoid(n * x * density * special.ndtr(x) ** (n - 1), x))


def flattery(n: int, baseline: int, noise: float) -> float:
    """The most by which a gap to the baseline is too low, negative if too high.

    Args:
      n: runs of the optimizer's search in a cell.
      baseline: runs of the baseline's.
      noise: standard deviation of one run's loss.

    Returns:
      The bound, in the unit of `noise`.

    Example:
      >>> print(round(flattery(100, 10, noise=0.003), 4))
      0.0029
    """
    return noise * (expected_best(n) - expected_best(baseline))
