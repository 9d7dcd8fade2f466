"""Where a learning curve leads, and when enough of it has been seen.

References:
  Vilares Ferro, M., Darriba Bilbao, V., Ribadas Pena, F. (2017). Modeling of learning
  curves with applications to PoS tagging. Computer Speech & Language 41.
"""

from typing import Any, NamedTuple

import numpy as np

from gnomon.scaling.check import checked, positive
from gnomon.scaling.compute import saturating
from gnomon.scaling.fit import Fit, fit_law
from gnomon.scaling.form import center


class Extrapolation(NamedTuple):
    """A curve's law, refitted as the curve grew.

    Attributes:
      fit: The law at the stop, or at the end of the curve: ``E + A / units^alpha``.
      stop: Rows seen when the rule said stop; None when it never did.
      seen: ``[levels]`` rows of each refit.
      predicted: ``[levels]`` loss predicted at the target by each.
    """

    fit: Fit
    stop: int | None
    seen: np.ndarray
    predicted: np.ndarray


def extrapolate_curve(
    *,
    units: Any,
    loss: Any,
    target: float,
    tolerance: float = 0.005,
    patience: int = 3,
    least: int = 6,
    delta: float = 1e-3,
) -> Extrapolation:
    """Follows a learning curve until its prediction settles.

    After each row from the `least`-th on, the power law is fitted to all rows so far
    and predicts the loss at `target`. The rule says stop once `patience` predictions
    in a row lie within `tolerance`, relatively, of the one before each.

    Args:
      units: ``[n]`` rising amounts of training data, steps or tokens.
      loss: ``[n]`` losses there; for an accuracy give the error, 1 - accuracy.
      target: units whose loss is wanted.
      tolerance: largest relative change of a settled prediction.
      patience: settled predictions in a row to wait for.
      least: rows of the first fit, at least 4.
      delta: of Huber's loss of log residuals.

    Returns:
      The law and the rule's answer.

    Raises:
      ValueError: A column is unfit, `units` does not rise, there are fewer than
        `least` rows, or `target` or `tolerance` is not positive.

    Example:
      >>> units = np.arange(1, 41) * 1000.0
      >>> wobble = 1 + 0.01 * np.cos(5.0 * np.arange(40))
      >>> found = extrapolate_curve(
      ...     units=units, loss=(0.03 + 2 * units**-0.4) * wobble, target=2e5)
      >>> print(found.stop, found.fit.predict(units=2e5).round(4))
      30 0.0451

    Differences:
      The paper stops by the change of the asymptote past a level found from the
      curve's own shape. Here it is the prediction at a target that must settle, which
      stays finite where a short curve's asymptote is not determined.
    """
    if least < 4:
        raise ValueError(f"least={least}: a law of three parameters needs 4 rows")
    if patience < 1:
        raise ValueError(f"patience={patience}: must be at least 1")
    if not tolerance > 0:
        raise ValueError(f"tolerance={tolerance}: must be positive, such as 0.005")
    positive("target", target)
    columns = checked(
        least - 1, distinct={"units": 3, "loss": 2}, units=units, loss=loss
    )
    measured, units = columns["loss"], columns["units"]
    if (np.diff(units) <= 0).any():
        raise ValueError("units: must rise from row to row; sort the curve")
    seen: list[int] = []
    predicted: list[float] = []
    settled = 0
    form = saturating("units", center(units))
    for count in range(least, len(units) + 1):
        law = fit_law(
            form, {"units": units[:count]}, "loss", measured[:count], delta=delta
        )
        value = float(law.predict(units=target))
        close = bool(predicted) and abs(value / predicted[-1] - 1) <= tolerance
        settled = settled + 1 if close else 0
        seen.append(count)
        predicted.append(value)
        if settled >= patience:
            break
    stop = seen[-1] if settled >= patience else None
    return Extrapolation(law, stop, np.array(seen), np.array(predicted))
