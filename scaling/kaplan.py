r"""Loss in parameters, steps and batch size: the form with a critical batch.

.. math:: L = \left(\frac{N_c}{N}\right)^{\alpha_N}
   + \left(\frac{S_c}{S_{\min}}\right)^{\alpha_S}, \qquad
   S_{\min} = \frac{S}{1 + B_{crit}(L) / B}, \qquad
   B_{crit}(L) = B_* L^{-1 / \alpha_B}

References:
  Kaplan, J. et al. (2020). Scaling Laws for Neural Language Models.
  Su, H. et al. (2024). Unraveling the Mystery of Scaling Laws: Part I.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from gnomon.scaling.check import checked
from gnomon.scaling.chinchilla import EXPONENT_BOUNDS
from gnomon.scaling.fit import DRAWS, Fit, fit_law
from gnomon.scaling.form import Columns, Form, Quantity, center, complex_step

EXPONENTS = np.geomspace(0.03, 1.5, 12)


@dataclasses.dataclass(frozen=True)
class KaplanFit(Fit):
    """A `Fit` that predicts from parameters, steps and batch alone.

    The critical batch depends on the loss that is to be predicted. Its equation has
    one solution, since the right-hand side falls as the loss on it rises; it is found
    by bisection.
    """

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of what `predict` needs."""
        return tuple(name for name in self.columns if name != "loss")

    def _predict(self, columns: Columns) -> Quantity:
        rows = {name: columns[name] for name in self.inputs}
        n = len(rows["params"])

        def function(theta: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
            flat = theta.reshape(-1, theta.shape[-1])
            c = coefficients.reshape(len(flat), -1)
            low, high = np.full((len(flat), n), -30.0), np.full((len(flat), n), 30.0)
            for _ in range(60):
                middle = (low + high) / 2
                level = {**rows, "loss": np.exp(middle)}
                terms = _terms(self._scales, flat, level)
                above = np.einsum("kj,kjn->kn", c, terms) > np.exp(middle)
                low, high = (
                    np.where(above, middle, low),
                    np.where(above, high, middle),
                )
            found: np.ndarray = np.exp((low + high) / 2)
            return found.reshape(*theta.shape[:-1], n)

        return function

    @property
    def _scales(self) -> tuple[float, ...]:
        names = ("params", "steps", "loss")
        return tuple(center(self.columns[name]) for name in names)


def fit_kaplan(
    *,
    params: Any,
    steps: Any,
    batch: Any,
    loss: Any,
    bootstrap: int = DRAWS,
    delta: float = 1e-3,
    seed: int = 0,
) -> KaplanFit:
    """Fits loss in parameters, steps and batch size.

    While fitting, the critical batch is read off the measured losses, which leaves the
    law a sum of two power terms; predictions solve the equation for the loss. With one
    batch size in all runs the critical batch cannot be told from the runs.

    Args:
      params: ``[n]`` parameters.
      steps: ``[n]`` steps; several points of a run's curve may be rows.
      batch: ``[n]`` batch sizes in tokens.
      loss: ``[n]`` losses there.
      bootstrap: draws behind the intervals; 0 takes the covariance. Resampling takes
        rows for independent, so points of one curve make it too sure.
      delta: of Huber's loss of log residuals.
      seed: of the bootstrap.

    Returns:
      The fit, with attributes ``N_c``, ``S_c``, ``alpha_N``, ``alpha_S``, ``B_star``
      and ``alpha_B``.

    Raises:
      ValueError: A column is unfit or does not vary, or there are fewer than seven
        runs.

    Example:
      Points where chosen losses are reached, with the constants of the paper.

      >>> N, L, B = (x.ravel() for x in np.meshgrid(
      ...     [1e6, 1e7, 1e8], [4.2, 4.6, 5.2], [3e4, 3e5]))
      >>> least = 2100 / (L - (8.8e13 / N) ** 0.076) ** (1 / 0.76)
      >>> S = least * (1 + 2e8 * L ** (-1 / 0.21) / B)
      >>> law = fit_kaplan(params=N, steps=S, batch=B, loss=L)
      >>> print(f"{law.N_c:.3g} {law.S_c:.4g} {law.alpha_N:.4f} {law.alpha_S:.4f}")
      8.8e+13 2100 0.0760 0.7600
      >>> print(law.predict(params=1e9, steps=1e5, batch=5e5).round(4))
      2.5689
    """
    columns = checked(
        6,
        distinct=dict.fromkeys(("params", "steps", "batch", "loss"), 2),
        params=params,
        steps=steps,
        batch=batch,
        loss=loss,
    )
    scales = tuple(center(columns[name]) for name in ("params", "steps", "loss"))
    typical = np.log(center(columns["batch"]))

    form = Form(
        complex_step(functools.partial(_terms, scales)),
        (
            EXPONENTS,
            EXPONENTS,
            typical + np.linspace(-4, 4, 9),
            np.array([0.5, 2.0, 4.0, 8.0]),
        ),
        np.array(
            [
                EXPONENT_BOUNDS,
                EXPONENT_BOUNDS,
                [typical - 12, typical + 12],
                [0.05, 30.0],
            ]
        ),
        functools.partial(_named, scales),
        frozenset({"N_c", "S_c", "B_star"}),
        "L = (N_c / N)^alpha_N + (S_c / S_min)^alpha_S",
    )
    found = fit_law(
        form,
        columns,
        "loss",
        columns["loss"],
        bootstrap=bootstrap,
        delta=delta,
        seed=seed,
    )
    return KaplanFit(**found.__dict__)


def _named(
    scales: tuple[float, ...], theta: np.ndarray, c: np.ndarray
) -> dict[str, np.ndarray]:
    alpha_n, alpha_s, log_critical, power = (theta[..., k] for k in range(4))
    c = np.maximum(c, 1e-300)
    return {
        "N_c": scales[0] * c[..., 0] ** (1 / alpha_n),
        "S_c": scales[1] * c[..., 1] ** (1 / alpha_s),
        "alpha_N": alpha_n,
        "alpha_S": alpha_s,
        "B_star": np.exp(log_critical + power * np.log(scales[2])),
        "alpha_B": 1 / power,
    }


def _terms(
    scales: tuple[float, ...], theta: np.ndarray, columns: Columns
) -> np.ndarray:
    alpha_n, alpha_s, log_b, power = (theta[..., k : k + 1] for k in range(4))
    # log_b is the critical batch at the center of the losses; B_* lies far outside.
    critical = np.exp(log_b - power * np.log(columns["loss"] / scales[2]))
    least = columns["steps"] / (1 + critical / columns["batch"])
    return np.stack(
        [
            np.exp(-alpha_n * np.log(columns["params"] / scales[0])),
            np.exp(-alpha_s * np.log(least / scales[1])),
        ],
        axis=-2,
    )
