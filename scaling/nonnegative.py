"""Nonnegative least squares for a few unknowns, exact and for many problems at once."""

import itertools

import numpy as np


def nonnegative_least_squares(gram: np.ndarray, target: np.ndarray) -> np.ndarray:
    r"""Minimizes :math:`c^T G c / 2 - b^T c` over :math:`c \ge 0`.

    Every set of unknowns that may be positive is tried, and of the solutions without
    a negative entry the best is kept. With m unknowns these are
    :math:`2^m - 1` small systems, so m is meant to be 4 at the most; no iteration,
    no starting point, no tolerance.

    Args:
      gram: ``[..., m, m]`` symmetric positive semidefinite matrices G.
      target: ``[..., m]`` right-hand sides b.

    Returns:
      ``[..., m]`` minimizers.

    Example:
      >>> gram = np.array([[2.0, 0.5], [0.5, 1.0]])
      >>> print(nonnegative_least_squares(gram, np.array([1.0, -1.0])))
      [0.5 0. ]

    References:
      Lawson, C. L. and Hanson, R. J. (1974). Solving Least Squares Problems. Chapter
      23, whose optimality conditions single out one of these sets.
    """
    unknowns = target.shape[-1]
    # Columns can differ by many orders of magnitude; scaled, the tiny ridge that
    # keeps nearly collinear columns solvable means the same for all.
    scale = np.sqrt(np.maximum(np.einsum("...ii->...i", gram), 1e-300))
    scaled = gram / (scale[..., :, None] * scale[..., None, :])
    scaled = scaled + 1e-13 * np.eye(unknowns)
    right = target / scale
    best = np.zeros_like(right)
    least = np.zeros(right.shape[:-1])
    for size in range(1, unknowns + 1):
        for support in itertools.combinations(range(unknowns), size):
            index = list(support)
            part = scaled[..., index, :][..., index]
            found = np.linalg.solve(part, right[..., index, None])[..., 0]
            value = -0.5 * (found * right[..., index]).sum(axis=-1)
            better = (found >= 0).all(axis=-1) & (value < least)
            solution = np.zeros_like(right)
            solution[..., index] = found
            best = np.where(better[..., None], solution, best)
            least = np.where(better, value, least)
    minimizers: np.ndarray = best / scale
    return minimizers
