r"""The law of loss in compute, :math:`L(C) = E + A / C^\alpha`, and plain powers.

`fit_power` is also the law of optimal learning rates and batch sizes (see
`gnomon.scaling.hyperparameters`).
"""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from gnomon.scaling.check import checked
from gnomon.scaling.chinchilla import EXPONENT_BOUNDS, EXPONENTS
from gnomon.scaling.fit import DRAWS, Fit, fit_law
from gnomon.scaling.form import Form, center, power_terms


def saturating(name: str, scale: float) -> Form:
    """The form ``E + A x^-alpha`` in one column.

    Args:
      name: the column.
      scale: its center.

    Returns:
      The form, with parameters ``E``, ``A`` and ``alpha``.
    """
    return Form(
        power_terms([{}, {0: (name, scale)}], exponents=1),
        (np.geomspace(EXPONENTS[0], EXPONENTS[-1], 80),),
        np.array([EXPONENT_BOUNDS]),
        functools.partial(_saturating_names, scale),
        frozenset({"A"}),
        f"y = E + A / {name}^alpha",
    )


def _saturating_names(
    scale: float, theta: np.ndarray, c: np.ndarray
) -> dict[str, np.ndarray]:
    alpha = theta[..., 0]
    return {"E": c[..., 0], "A": c[..., 1] * scale**alpha, "alpha": alpha}


def fit_compute(
    *,
    compute: Any,
    loss: Any,
    bootstrap: int = DRAWS,
    delta: float = 1e-3,
    seed: int = 0,
) -> Fit:
    r"""Fits :math:`L(C) = E + A / C^\alpha`.

    Args:
      compute: ``[n]`` FLOPs of training of each run, or any other measure of scale.
      loss: ``[n]`` final losses, of runs tuned at their scale.
      bootstrap: draws of the runs behind the intervals; 0 takes the covariance.
      delta: where Huber's loss of log residuals turns linear.
      seed: of the bootstrap.

    Returns:
      The fit, with attributes ``E``, ``A`` and ``alpha``.

    Raises:
      ValueError: A column is unfit, or there are fewer than four runs.

    Example:
      >>> C = np.geomspace(1e15, 1e19, 9)
      >>> law = fit_compute(compute=C, loss=1.7 + 300 * C**-0.15)
      >>> print(round(law.E, 6), round(law.A, 3), round(law.alpha, 6))
      1.7 300.0 0.15
      >>> print(law.predict(compute=1e21).round(4))
      1.9124
    """
    columns = checked(3, distinct={"compute": 3, "loss": 2}, compute=compute, loss=loss)
    measured = columns.pop("loss")
    form = saturating("compute", center(columns["compute"]))
    return fit_law(
        form, columns, "loss", measured, bootstrap=bootstrap, delta=delta, seed=seed
    )


def fit_power(
    target: str,
    *,
    bootstrap: int = DRAWS,
    delta: float = 1e-3,
    seed: int = 0,
    **columns: Any,
) -> Fit:
    r"""Fits a plain power law :math:`y = c \prod_k x_k^{a_k}`, robustly.

    Args:
      target: which of the columns is y.
      bootstrap: draws of the runs behind the intervals; 0 takes the covariance.
      delta: where Huber's loss of log residuals turns linear.
      seed: of the bootstrap.
      **columns: y and every :math:`x_k`, ``[n]`` each.

    Returns:
      The fit: attribute ``coefficient``, and for each x its exponent by its name.

    Raises:
      ValueError: `target` is not among the columns, a column is unfit, or there are
        not more runs than unknowns.

    Example:
      Optimal learning rates of four cells that follow N^-0.5 D^0.25.

      >>> N = np.array([1e7, 1e8, 1e7, 1e8]); D = np.array([1e9, 1e9, 1e10, 1e10])
      >>> rate = 0.02 * N**-0.5 * D**0.25
      >>> law = fit_power("learning_rate", learning_rate=rate, params=N, tokens=D)
      >>> print({name: round(value, 6) for name, value in law.parameters.items()})
      {'coefficient': 0.02, 'params': -0.5, 'tokens': 0.25}
    """
    if not isinstance(target, str):
        raise ValueError(
            f"target: is a {type(target).__name__}; give the name of a column, and the"
            ' column by that name: fit_power("learning_rate", learning_rate=..., ...)'
        )
    if "coefficient" in columns:
        raise ValueError("coefficient: is what the law calls c; rename that column")
    if target not in columns:
        raise ValueError(f"target={target!r}: give its column too, {target}=...")
    inputs = [name for name in columns if name != target]
    if not inputs:
        raise ValueError(f"{target}: give at least one column that it depends on")
    table = checked(len(inputs) + 1, distinct=dict.fromkeys(inputs, 2), **columns)
    measured = table.pop(target)
    logs = np.stack([np.ones_like(measured), *(np.log(table[x]) for x in inputs)])
    if np.linalg.matrix_rank(logs / np.abs(logs).max(axis=1, keepdims=True)) <= len(
        inputs
    ):
        raise ValueError(
            f"{', '.join(inputs)}: are powers of each other in these runs, so their"
            " exponents cannot be told apart; vary one alone or leave one out"
        )
    scales = {name: center(table[name]) for name in inputs}
    form = Form(
        power_terms([{k: (x, scales[x]) for k, x in enumerate(inputs)}], len(inputs)),
        # In log space this is a linear model: any start leads to the one minimum.
        tuple(np.zeros(1) for _ in inputs),
        np.array([[-50.0, 50.0]] * len(inputs)),
        functools.partial(_power_names, scales),
        frozenset({"coefficient"}),
        f"{target} = c * " + " * ".join(f"{x}^a_{x}" for x in inputs),
    )
    return fit_law(
        form, table, target, measured, bootstrap=bootstrap, delta=delta, seed=seed
    )


def _power_names(
    scales: Mapping[str, float], theta: np.ndarray, c: np.ndarray
) -> dict[str, np.ndarray]:
    shift = sum(
        theta[..., k] * np.log(scale) for k, scale in enumerate(scales.values())
    )
    exponents = {name: -theta[..., k] for k, name in enumerate(scales)}
    return {"coefficient": c[..., 0] * np.exp(shift), **exponents}
