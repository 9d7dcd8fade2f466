"""A curve of loss against compute that decreases, and where it reaches a loss.

By hand, since `scipy.optimize.isotonic_regression` takes one series at a time and a
comparison asks for thousands of bootstrap draws.
"""

import numpy as np


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
    start, end = np.ogrid[:points, :points]
    mean = (sums[:, None, 1:] - sums[:, :-1, None]) / np.maximum(end + 1 - start, 1)
    # Minimum over starts <= i of the largest mean up to an end >= i.
    fit = np.stack(
        [mean[:, : i + 1, i:].max(axis=2).min(axis=1) for i in range(points)], axis=1
    )
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
