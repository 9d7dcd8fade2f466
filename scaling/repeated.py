r"""The law of loss when data repeat.

Tokens seen again, and parameters beyond what the distinct tokens call for, count for
less and less:

.. math:: L = E + \frac{A}{N'^\alpha} + \frac{B}{D'^\beta}, \quad
   D' = U_D + U_D R_D^* \left(1 - e^{-R_D / R_D^*}\right), \quad
   N' = U_N + U_N R_N^* \left(1 - e^{-R_N / R_N^*}\right)

with :math:`U_D` distinct tokens, :math:`R_D = D / U_D - 1` repetitions,
:math:`U_N = \min(N, N^*(U_D))` where :math:`N^*` is compute-optimal for
:math:`U_D` tokens, and :math:`R_N = N / U_N - 1`.

References:
  Muennighoff, N. et al. (2023). Scaling Data-Constrained Language Models.
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from gnomon.scaling.check import checked
from gnomon.scaling.chinchilla import (
    EXPONENT_BOUNDS,
    ChinchillaFit,
    fit_chinchilla,
)
from gnomon.scaling.fit import DRAWS, Fit, fit_law
from gnomon.scaling.form import Columns, Form, center, complex_step

LOG_VALUES = np.log(np.geomspace(0.3, 100, 8))
ROUNDS = 50


def fit_data_constrained(
    *,
    params: Any,
    tokens: Any,
    unique: Any,
    loss: Any,
    base: ChinchillaFit | None = None,
    bootstrap: int = DRAWS,
    delta: float = 1e-3,
    seed: int = 0,
) -> Fit:
    """Fits the law with decaying value of repeated tokens and excess parameters.

    Args:
      params: ``[n]`` parameters.
      tokens: ``[n]`` tokens seen, repeats counted.
      unique: ``[n]`` distinct tokens among them.
      loss: ``[n]`` final losses.
      base: the law without repetition, from which the search starts; None fits it to
        the runs without repeats.
      bootstrap: draws behind the intervals; all take :math:`N^*` from the estimate.
      delta: of Huber's loss of log residuals.
      seed: of the bootstrap.

    Returns:
      The fit, with attributes ``E``, ``A``, ``B``, ``alpha``, ``beta``,
      ``repeat_tokens`` (the paper's R*_D: after so many repetitions the gain has
      fallen to 1/e) and ``repeat_params`` (R*_N). Runs without excess parameters
      leave the last undetermined; `notes` says so when it ends at its bound.

    Raises:
      ValueError: A column is unfit, `unique` exceeds `tokens`, there are fewer than
        eight runs, or too few without repeats and no `base`.

    Example:
      >>> U, N, epochs = (x.ravel() for x in np.meshgrid(
      ...     [1e8, 1e9, 1e10], [1e6, 4e6, 1e7], [1.0, 5.0, 30.0]))
      >>> worth = U * (1 + 15 * (1 - np.exp(-(epochs - 1) / 15)))
      >>> law = fit_data_constrained(params=N, tokens=U * epochs, unique=U,
      ...     loss=1.8 + 500 / N**0.35 + 2100 / worth**0.37)
      >>> print(round(law.alpha, 4), round(law.beta, 4), round(law.repeat_tokens, 2))
      0.35 0.37 15.0

    Differences:
      The authors fix E, A, B and exponents from earlier runs and then fit the two
      rates; here all are fitted together, the base law being only a start.
    """
    columns = checked(
        7,
        distinct={"params": 3, "tokens": 3, "loss": 2},
        params=params,
        tokens=tokens,
        unique=unique,
        loss=loss,
    )
    measured = columns.pop("loss")
    more = columns["unique"] > columns["tokens"] * (1 + 1e-9)
    if more.any():
        raise ValueError(
            f"unique: exceeds tokens in {more.sum()} runs (first: row"
            f" {int(np.flatnonzero(more)[0])}); give distinct tokens among those seen"
        )
    fresh = columns["unique"] >= columns["tokens"] * (1 - 1e-9)
    if fresh.all():
        raise ValueError("unique: no run repeats tokens; use fit_chinchilla")
    if base is None:
        if fresh.sum() < 6:
            raise ValueError(
                f"unique: {fresh.sum()} runs have no repeats, six are needed to fit the"
                " base law; add runs or give base="
            )
        base = fit_chinchilla(
            params=columns["params"][fresh],
            tokens=columns["tokens"][fresh],
            loss=measured[fresh],
            delta=delta,
        )
    law: Fit = base
    scales = center(columns["params"]), center(columns["unique"])
    around = np.array([0.7, 0.85, 1.0, 1.2, 1.4])
    grid = (base.alpha * around, base.beta * around, LOG_VALUES, LOG_VALUES)
    # The size that calls for the distinct tokens follows from the law itself. It is
    # held while fitting, so that the law stays a sum of terms, and then renewed.
    for _ in range(ROUNDS):
        before = law
        form = _form(law, scales, grid)
        law = fit_law(form, columns, "loss", measured, bootstrap=0, delta=delta)
        grid = tuple(theta[None] for theta in law.solution.theta)
        if abs(law.A / before.A - 1) + abs(law.alpha / before.alpha - 1) < 1e-6:
            break
    return fit_law(
        _form(law, scales, grid),
        columns,
        "loss",
        measured,
        bootstrap=bootstrap,
        delta=delta,
        seed=seed,
    )


def _form(base: Fit, scales: tuple[float, float], grid: Sequence[np.ndarray]) -> Form:
    rates = [np.log(1e-2), np.log(1e4)]
    balance = base.alpha * base.A / (base.beta * base.B)
    held = balance, base.alpha, base.beta
    return Form(
        complex_step(functools.partial(_terms, held, scales)),
        grid,
        np.array([EXPONENT_BOUNDS, EXPONENT_BOUNDS, rates, rates]),
        functools.partial(_named, scales),
        frozenset({"A", "B", "repeat_tokens", "repeat_params"}),
        "L = E + A / N'^alpha + B / D'^beta",
    )


def _worth(own: np.ndarray, seen: np.ndarray, rate: np.ndarray) -> np.ndarray:
    """Own plus the decayed worth of what exceeds it."""
    worth: np.ndarray = own * (1 + rate * -np.expm1(-(seen / own - 1) / rate))
    return worth


def _terms(
    held: tuple[float, float, float],
    scales: tuple[float, float],
    theta: np.ndarray,
    columns: Columns,
) -> np.ndarray:
    balance, alpha, beta = held
    a, b, log_rd, log_rn = (theta[..., k : k + 1] for k in range(4))
    unique = np.minimum(columns["unique"], columns["tokens"])
    optimal = (balance * unique**beta) ** (1 / alpha)
    own = np.minimum(columns["params"], optimal)
    d = _worth(unique, columns["tokens"], np.exp(log_rd))
    n = _worth(own, columns["params"], np.exp(log_rn))
    parts = [np.exp(-a * np.log(n / scales[0])), np.exp(-b * np.log(d / scales[1]))]
    return np.stack([np.ones_like(parts[0]), *parts], axis=-2)


def _named(
    scales: tuple[float, float], theta: np.ndarray, c: np.ndarray
) -> dict[str, np.ndarray]:
    return {
        "E": c[..., 0],
        "A": c[..., 1] * scales[0] ** theta[..., 0],
        "B": c[..., 2] * scales[1] ** theta[..., 1],
        "alpha": theta[..., 0],
        "beta": theta[..., 1],
        "repeat_tokens": np.exp(theta[..., 2]),
        "repeat_params": np.exp(theta[..., 3]),
    }
