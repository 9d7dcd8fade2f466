r"""The bottom of a tuning curve, between the points of its grid.

Near its optimum a final loss is close to a parabola in the logarithm of the learning
rate. Through the best point of a grid, at :math:`x_0`, and its neighbors at distances
:math:`a` to the left and :math:`b` to the right, which are worse by :math:`p` and
:math:`q`, it has the slope and the half curvature

.. math:: s = \frac{q a / b - p b / a}{a + b}, \quad k = \frac{p / a + q / b}{a + b}

at :math:`x_0`, hence its lowest point at :math:`x_0 - s / 2k`, lower by
:math:`s^2 / 4k`. With equal distances and :math:`q = r p` the gain is
:math:`p (r - 1)^2 / 8 (r + 1)`, which is more than all of :math:`p` for large r: next
to divergence a curve is a cliff and no parabola. The gain is therefore held to
:math:`\min(p, q) / 4`, which binds when one side is 4.2 times as steep as the other.
"""

import numpy as np

CAP = 0.25  # of the smaller rise: the most that is read between two points


def neighbors(rates: np.ndarray, others: list) -> np.ndarray:
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
    draws = np.arange(len(losses))
    best = np.argmin(losses, axis=1)
    left, right = beside[:, best]
    inside = (left >= 0) & (right >= 0)
    left, right = np.where(inside, left, best), np.where(inside, right, best)
    bottom = losses[draws, best]
    p, q = losses[draws, left] - bottom, losses[draws, right] - bottom
    a = np.where(inside, log_rates[best] - log_rates[left], 1.0)
    b = np.where(inside, log_rates[right] - log_rates[best], 1.0)
    slope = (q * a / b - p * b / a) / (a + b)
    curvature = (p / a + q / b) / (a + b)
    # A flat stretch has its lowest point anywhere: it stays where it is.
    curved = curvature > 0
    shift = np.divide(-slope, 2 * curvature, out=np.zeros_like(slope), where=curved)
    gain = np.divide(slope**2, 4 * curvature, out=np.zeros_like(slope), where=curved)
    held = np.minimum(gain, CAP * np.minimum(p, q))
    scale = np.divide(held, gain, out=np.zeros_like(gain), where=gain > 0)
    return log_rates[best] + scale * shift, bottom - held
