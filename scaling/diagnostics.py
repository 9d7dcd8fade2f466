"""Whether the runs determine a law, and whether the law describes the runs."""

from typing import NamedTuple

import numpy as np
from scipy import special


class Conditioning(NamedTuple):
    """Condition numbers of the fit's Gauss-Newton matrix.

    Attributes:
      full: Over all parameters in the units of the data, as a direct fit meets it.
      reduced: Over theta alone, the coefficients projected out, as the solver's grid
        meets it. Above some 1e4 the data do not tell the exponents apart.
    """

    full: float
    reduced: float


class LackOfFit(NamedTuple):
    """An F test of the law against the scatter of replicates.

    Attributes:
      statistic: Mean square of the law's misfit over that of the replicates.
      p_value: Chance of so large a statistic if the law held; small speaks against it.
      degrees: Degrees of freedom of misfit and of replicates.
    """

    statistic: float
    p_value: float
    degrees: tuple[int, int]


def conditioning(rows: np.ndarray, named: np.ndarray, exponents: int) -> Conditioning:
    """Condition numbers before and after the coefficients are projected out.

    Args:
      rows: ``[p, n]`` slopes of log predictions in theta and log coefficients.
      named: ``[p, p]`` slopes of the named parameters (columns) in the same.
      exponents: how many of the rows belong to theta.

    Returns:
      Both numbers.

    Example:
      >>> rows = np.array([[3.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
      >>> conditioning(rows, np.eye(2), exponents=1)
      Conditioning(full=9.0, reduced=1.0)
    """
    linear = rows[exponents:]
    inside = np.linalg.lstsq(linear.T, rows[:exponents].T, rcond=None)[0]
    reduced = rows[:exponents] - inside.T @ linear
    return Conditioning(
        _condition(np.linalg.pinv(named, rcond=1e-300) @ rows), _condition(reduced)
    )


def lack_of_fit(
    inputs: np.ndarray, residual: np.ndarray, unknowns: int
) -> LackOfFit | None:
    """Compares a law's errors with the scatter of runs that share their inputs.

    Args:
      inputs: ``[n, k]``.
      residual: ``[n]`` of log predictions.
      unknowns: parameters that were fitted.

    Returns:
      The test, or None without replicates or without more inputs than unknowns.

    Example:
      >>> inputs = np.array([[1.0], [1.0], [2.0], [2.0]])
      >>> test = lack_of_fit(inputs, np.array([0.1, 0.2, -0.1, -0.2]), unknowns=1)
      >>> print(round(test.statistic, 2), round(test.p_value, 3), test.degrees)
      18.0 0.051 (1, 2)
    """
    _, group, count = np.unique(inputs, axis=0, return_inverse=True, return_counts=True)
    group = group.reshape(-1)
    scatter, misfit = len(group) - len(count), len(count) - unknowns
    if scatter < 1 or misfit < 1:
        return None
    mean = np.bincount(group, residual) / count
    pure = ((residual - mean[group]) ** 2).sum() / scatter
    lack = (count * mean**2).sum() / misfit
    statistic = lack / max(pure, 1e-300)
    p_value = special.fdtrc(misfit, scatter, statistic)
    return LackOfFit(float(statistic), float(p_value), (misfit, scatter))


def _condition(rows: np.ndarray) -> float:
    if not rows.size:
        return 1.0
    singular = np.linalg.svd(rows, compute_uv=False)
    with np.errstate(over="ignore"):  # infinite where a row is zero
        return float((singular[0] / max(singular[-1], 1e-300)) ** 2)
