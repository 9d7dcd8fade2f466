r"""The bottom of a tuning curve, between the points of its grid.

Near its optimum a final loss is close to a parabola in the logarithm of the learning
rate. Let the best point of a grid, at :math:`x_0`, be better by :math:`p` than its
neighbor at :math:`x_0 + a`. A parabola through the two has one number left to know,
its half curvature :math:`k`:

.. math:: L(x_0 + u) - L(x_0) = p \frac{u}{a} - k \, u \, (a - u)

When :math:`k a^2 > p` its lowest point lies between the two, at
:math:`u = (a - p / k a) / 2`, lower than the best point by :math:`k u^2`. A third point
at :math:`x_0 + d`, worse than the best by :math:`r`, tells the half curvature

.. math:: k = \frac{r / d - p / a}{d - a}.

Two points lie next to those two, one on each side. On a parabola they tell the same.
Next to divergence a curve is a cliff and no parabola, and the point beyond the cliff
tells far too large a curvature: the smaller of both is taken. The bottom is looked for
on the side of the neighbor with the smaller :math:`p / a^2`, where the parabola through
the best point and both its neighbors has it.

Where that neighbor ends its line only one curvature is known. It is held to
:math:`\kappa p / a^2` with :math:`\kappa = (3 + \sqrt 5) / 2`, so that no more than
:math:`p / 4` is gained: nothing midway, where :math:`p` is zero. With equal distances
this binds when the best point's other neighbor is worse by more than :math:`4.2 p`.
"""

from typing import Any

import numpy as np

HELD = (3 + 5**0.5) / 2  # kappa: the curvature, in p / a^2, that gains p / 4


def neighbors(rates: np.ndarray, others: list[Any]) -> np.ndarray:
    """Which settings lie next to each along the learning rate.

    Args:
      rates: ``[settings]``; a NaN has no neighbors.
      others: for each setting, its other hyperparameters, as something hashable:
        settings are on one line when these agree.

    Returns:
      ``[2, settings]`` indices of the next lower and the next higher rate; -1 where
      there is none.

    Example:
      >>> neighbors(np.array([1e-3, 2e-3, 1e-3]), ["a", "a", "b"])
      array([[-1,  0, -1],
             [ 1, -1, -1]])
    """
    found = np.full((2, len(rates)), -1)
    for other in set(others):
        same = np.array([value == other for value in others])
        line = np.flatnonzero(same & np.isfinite(rates))
        line = line[np.argsort(rates[line])]
        found[0, line[1:]] = line[:-1]
        found[1, line[:-1]] = line[1:]
    return found


def lowest(
    log_rates: np.ndarray, losses: np.ndarray, beside: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where each draw's tuning curve is lowest, and how low.

    Args:
      log_rates: ``[settings]``; NaN for an optimizer without a learning rate.
      losses: ``[draws, settings]``.
      beside: ``[2, settings]`` from `neighbors`.

    Returns:
      ``[draws]`` log rates and losses. A best point at the end of its line is taken
      as it is.

    Example:
      >>> x = np.log([1e-3, 2e-3, 4e-3])
      >>> beside = neighbors(x, [0, 0, 0])
      >>> at, low = lowest(x, 2 + (x - np.log(2.2e-3))[None] ** 2, beside)
      >>> print(np.exp(at), low)
      [0.0022] [2.]
    """
    rows = np.arange(len(losses))
    best = np.argmin(losses, axis=1)
    at, low = log_rates[best], losses[rows, best]
    rows = np.flatnonzero((beside[:, best] >= 0).all(axis=0))
    sides = beside[:, best[rows]]

    def seen(point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far from the best point another lies, and how much worse it is."""
        return log_rates[point] - at[rows], losses[rows, point] - low[rows]

    distance, rise = seen(sides)
    side = np.argmin(rise / distance**2, axis=0)
    near, far = np.take_along_axis(sides, np.stack([side, 1 - side]), axis=0)
    beyond = beside[side, near]
    a, p = seen(near)

    def curvature(point: np.ndarray) -> np.ndarray:
        d, r = seen(point)
        return np.asarray((r / d - p / a) / (d - a))

    ends = beyond < 0
    limit = curvature(np.where(ends, far, beyond))
    k = np.minimum(curvature(far), np.where(ends, HELD * p / a**2, limit))
    # Elsewhere, as on a flat stretch, the best point itself is the lowest.
    between = k * a**2 > p
    shift = (a - np.divide(p, k * a, out=a.copy(), where=between)) / 2
    at[rows] += shift
    low[rows] -= k * shift**2
    return at, low
