r"""A power law through a baseline's losses, and where it reaches a loss.

.. math:: L(C) = E + B \, (C / C_0)^{-\beta}

with :math:`C_0` the geometric mean of the compute of the runs. For each
:math:`\beta` of a fine grid E and B are solved exactly (least squares); the best is
refined by the parabola through it and its neighbors. It is bootstrap draws by the
thousand that are fitted, so there is no search for each.
"""

from typing import NamedTuple

import numpy as np

LEAST = 4  # points; the law has three numbers
_EXPONENTS = np.geomspace(0.02, 2.0, 200)


class Power(NamedTuple):
    """Laws, one a draw.

    Attributes:
      floor: ``[draws]``, E.
      gain: ``[draws]``, B.
      exponent: ``[draws]``, beta.
      center: log of the compute that B is the gain at.
    """

    floor: np.ndarray
    gain: np.ndarray
    exponent: np.ndarray
    center: float

    def needed(self, loss: np.ndarray) -> np.ndarray:
        """Log compute at which each reaches a loss ``[draws]``.

        Infinite at or below the floor; NaN where the loss does not fall with compute.
        """
        above = np.maximum((loss - self.floor) / self.gain, 0.0)
        with np.errstate(divide="ignore"):
            found = self.center - np.log(above) / self.exponent
        return np.where(self.gain > 0, found, np.nan)


def fit_power(log_compute: np.ndarray, loss: np.ndarray) -> Power:
    """Fits each draw.

    Args:
      log_compute: ``[points]``, at least `LEAST` that differ.
      loss: ``[draws, points]``.

    Example:
      >>> x = np.log([1.0, 2.0, 4.0, 8.0])
      >>> law = fit_power(x, (2 + np.exp(-0.4 * x))[None])
      >>> need = law.needed(2 + np.array([3**-0.4]))
      >>> print(law.exponent.round(3), np.exp(need).round(3))
      [0.4] [3.]
    """
    center = float(np.mean(log_compute))
    # Draws of a few seeds are often the same one.
    loss, draw = np.unique(loss, axis=0, return_inverse=True)

    def solved(exponent: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Floors, gains and squared errors for ``[...]`` exponents of each draw."""
        shape = np.exp(-exponent[..., None] * (log_compute - center))
        mean = shape.mean(-1, keepdims=True)
        rise = loss - loss.mean(-1, keepdims=True)
        gain = ((shape - mean) * rise).sum(-1) / ((shape - mean) ** 2).sum(-1)
        left = rise - gain[..., None] * (shape - mean)
        return loss.mean(-1) - gain * mean[..., 0], gain, (left**2).sum(-1)

    errors = solved(_EXPONENTS[:, None])[2]
    best = np.clip(errors.argmin(0), 1, len(_EXPONENTS) - 2)
    low, here, high = (errors[best + d, np.arange(len(loss))] for d in (-1, 0, 1))
    bend = low - 2 * here + high
    shift = np.divide(low - high, 2 * bend, out=np.zeros_like(bend), where=bend > 0)
    step = np.log(_EXPONENTS[1] / _EXPONENTS[0])
    exponent = _EXPONENTS[best] * np.exp(step * np.clip(shift, -1, 1))
    floor, gain, _ = solved(exponent)
    return Power(floor[draw], gain[draw], exponent[draw], center)
