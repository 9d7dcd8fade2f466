r"""The law of loss in parameters and tokens, and what it says about spending compute.

.. math:: L(N, D) = E + \frac{A}{N^\alpha} + \frac{B}{D^\beta}

References:
  Hoffmann, J. et al. (2022). Training Compute-Optimal Large Language Models,
  approach 3.
  Besiroglu, T., Erdil, E., Barnett, M., You, J. (2024). Chinchilla Scaling: A
  replication attempt.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from gnomon.scaling.check import checked, positive
from gnomon.scaling.fit import DRAWS, Estimate, Fit, fit_law
from gnomon.scaling.form import Form, center, power_terms

# Exponents of published laws lie between 0.05 and 1.2.
EXPONENTS = np.geomspace(0.03, 3.0, 24)
EXPONENT_BOUNDS = (0.003, 10.0)


class Allocation(NamedTuple):
    """The best use of a budget of compute.

    Attributes:
      params: Model size.
      tokens: Length of training.
      loss: What the law says it reaches.
      exponent: :math:`\\beta / (\\alpha + \\beta)`, by which the size grows with
        compute.
    """

    params: Estimate
    tokens: Estimate
    loss: Estimate
    exponent: Estimate


@dataclasses.dataclass(frozen=True)
class ChinchillaFit(Fit):
    """A `Fit` with parameters ``E``, ``A``, ``B``, ``alpha`` and ``beta``."""

    def optimal(
        self, compute: Any, level: float = 0.95, flops: float = 6.0
    ) -> Allocation:
        r"""Compute-optimal allocation.

        With compute :math:`C = k N D`,

        .. math:: N^* = G \left(\frac{C}{k}\right)^{\beta / (\alpha + \beta)}, \quad
           D^* = \frac{C}{k N^*}, \quad
           G = \left(\frac{\alpha A}{\beta B}\right)^{1 / (\alpha + \beta)}

        Args:
          compute: FLOPs of training, a number or an array.
          level: of the intervals.
          flops: k, FLOPs a parameter and token. The fit itself never uses it.

        Returns:
          Sizes, tokens, losses and the exponent, each with an interval.

        Raises:
          ValueError: `compute` or `flops` is not positive and finite.
        """
        compute = positive("compute", compute)
        positive("flops", flops)

        def size(p: Mapping[str, np.ndarray]) -> np.ndarray:
            p = {name: _behind(value, compute) for name, value in p.items()}
            total = p["alpha"] + p["beta"]
            gain = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / total)
            found: np.ndarray = gain * (compute / flops) ** (p["beta"] / total)
            return found

        def loss(p: Mapping[str, np.ndarray]) -> np.ndarray:
            n = size(p)
            p = {name: _behind(value, compute) for name, value in p.items()}
            d = compute / (flops * n)
            found: np.ndarray = (
                p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]
            )
            return found

        return Allocation(
            self.quantity(size, level),
            self.quantity(lambda p: compute / (flops * size(p)), level),
            self.quantity(loss, level),
            self.quantity(lambda p: p["beta"] / (p["alpha"] + p["beta"]), level),
        )


def chinchilla_form(params: np.ndarray, tokens: np.ndarray) -> Form:
    """The law's form, its terms scaled to the center of the data."""
    n0, d0 = center(params), center(tokens)
    return Form(
        power_terms([{}, {0: ("params", n0)}, {1: ("tokens", d0)}], exponents=2),
        (EXPONENTS, EXPONENTS),
        np.array([EXPONENT_BOUNDS, EXPONENT_BOUNDS]),
        functools.partial(_named, n0, d0),
        frozenset({"A", "B"}),
        "L = E + A / N^alpha + B / D^beta",
    )


def _named(
    n0: float, d0: float, theta: np.ndarray, c: np.ndarray
) -> dict[str, np.ndarray]:
    alpha, beta = theta[..., 0], theta[..., 1]
    return {
        "E": c[..., 0],
        "A": c[..., 1] * n0**alpha,
        "B": c[..., 2] * d0**beta,
        "alpha": alpha,
        "beta": beta,
    }


def fit_chinchilla(
    *,
    params: Any,
    tokens: Any,
    loss: Any,
    bootstrap: int = DRAWS,
    delta: float = 1e-3,
    seed: int = 0,
) -> ChinchillaFit:
    """Fits loss in parameters and tokens.

    Args:
      params: ``[n]`` parameters of each run's model.
      tokens: ``[n]`` tokens (or examples) each was trained on.
      loss: ``[n]`` final losses.
      bootstrap: draws of the runs behind the intervals; 0 takes them from the
        covariance. 1,000 take about a second for 240 runs.
      delta: where Huber's loss of log residuals turns linear. The published 1e-3 is
        far below usual noise, which makes it a fit of least absolute deviations.
      seed: of the bootstrap.

    Returns:
      The fit, with attributes ``E``, ``A``, ``B``, ``alpha`` and ``beta``.

    Raises:
      ValueError: A column is unfit, or there are fewer than six runs.

    Example:
      >>> N, D = np.meshgrid(np.geomspace(1e7, 1e10, 4), np.geomspace(1e9, 1e11, 4))
      >>> N, D = N.ravel(), D.ravel()
      >>> law = fit_chinchilla(
      ...     params=N, tokens=D, loss=1.8 + 480 / N**0.35 + 2100 / D**0.37)
      >>> print(round(law.E, 6), round(law.alpha, 6), round(law.beta, 6))
      1.8 0.35 0.37
      >>> best = law.optimal(1e21)
      >>> print(f"{best.params.value:.3g} parameters, {best.tokens.value:.3g} tokens")
      2.94e+09 parameters, 5.67e+10 tokens

    References:
      Hoffmann et al. (2022); Besiroglu et al. (2024), as above.

    Differences:
      The published fits descend on all five parameters from a grid of starts. Here
      the grid is over the two exponents only, the rest being solved for.
    """
    columns = checked(
        5,
        distinct={"params": 3, "tokens": 3, "loss": 2},
        params=params,
        tokens=tokens,
        loss=loss,
    )
    measured = columns.pop("loss")
    form = chinchilla_form(**columns)
    found = fit_law(
        form, columns, "loss", measured, bootstrap=bootstrap, delta=delta, seed=seed
    )
    return ChinchillaFit(**found.__dict__)


def _behind(value: np.ndarray, like: np.ndarray) -> np.ndarray:
    """Axes behind those of the draws, for the axes of ``like``."""
    return np.reshape(value, np.shape(value) + (1,) * like.ndim)
