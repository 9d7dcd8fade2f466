"""How well a law fitted to the smaller runs predicts the larger ones."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from gnomon.scaling.check import numbers, positive
from gnomon.scaling.fit import Fit
from gnomon.scaling.tables import select


class Holdout(NamedTuple):
    """An extrapolation that was checked.

    Attributes:
      fit: The law, fitted to the smaller runs.
      rows: ``[k]`` rows of the table that were held out.
      measured: ``[k]`` what they gave.
      predicted: ``[k]`` what the law said.
      low: ``[k]`` lower ends of the intervals for one run.
      high: ``[k]`` upper ends.
      reach: Largest scale held out over the largest fitted.
    """

    fit: Fit
    rows: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    reach: float

    @property
    def errors(self) -> np.ndarray:
        """``[k]`` log of measured over predicted: relative errors with a sign."""
        errors: np.ndarray = np.log(self.measured / self.predicted)
        return errors

    @property
    def rms(self) -> float:
        """Root mean square of the errors."""
        return float(np.sqrt(np.mean(self.errors**2)))

    @property
    def bias(self) -> float:
        """Mean of the errors: above 0 where the law promised too much."""
        return float(np.mean(self.errors))

    @property
    def covered(self) -> float:
        """Share of held-out runs inside their intervals."""
        return float(
            np.mean((self.low <= self.measured) & (self.measured <= self.high))
        )


def holdout(
    fit: Callable[..., Fit],
    table: Mapping[str, Any],
    *,
    by: str | Any = "compute",
    share: float = 0.2,
    level: float = 0.95,
    **options: Any,
) -> Holdout:
    """Fits the smaller runs and predicts the largest.

    Args:
      fit: such as `fit_chinchilla`; the keywords it requires are the columns used.
      table: A run table.
      by: the column, or an array ``[n]``, that says which runs are large. Runs that
        tie with the smallest one held out are held out too.
      share: of the runs to hold out.
      level: of the intervals.
      **options: for `fit`, such as ``bootstrap=1000``.

    Returns:
      Predictions and errors.

    Raises:
      ValueError: A column is missing or unfit, `share` is not between 0 and 1, or too
        few runs are left to fit.

    Example:
      >>> from gnomon.scaling.compute import fit_compute
      >>> C = np.geomspace(1e15, 1e19, 12)
      >>> wobble = 1 + 0.002 * np.cos(7 * np.arange(12))
      >>> runs = {"compute": C, "loss": (1.7 + 300 * C**-0.15) * wobble}
      >>> held = holdout(fit_compute, runs, share=0.25)
      >>> print(held.rows, f"{held.rms:.4f} at {held.reach:.1f} times the scale")
      [ 9 10 11] 0.0042 at 12.3 times the scale
    """
    if not 0 < share < 1:
        raise ValueError(f"share={share}: must lie between 0 and 1, such as 0.2")
    required = [
        name
        for name, parameter in inspect.signature(fit).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
        and parameter.default is parameter.empty
        and name not in options
    ]
    columns = {
        name: numbers(name, column) for name, column in select(table, *required).items()
    }
    named = select(table, by)[by] if isinstance(by, str) else by
    scale = positive(by if isinstance(by, str) else "by", named)
    lengths = {name: len(column) for name, column in columns.items()}
    if {*lengths.values(), len(scale)} != {len(scale)}:
        raise ValueError(f"columns differ in length: {lengths}, by {len(scale)}")
    held = max(1, round(share * len(scale)))
    large = scale >= np.sort(scale)[-held]
    if large.all():
        raise ValueError(
            f"by={by!r}: all runs are equally large; nothing to fit is left"
        )
    law = fit(**{name: column[~large] for name, column in columns.items()}, **options)
    inputs = {name: columns[name][large] for name in law.inputs}
    found = law.predict_interval(level, noise=True, **inputs)
    return Holdout(
        fit=law,
        rows=np.flatnonzero(large),
        measured=columns[law.target][large],
        predicted=found.value,
        low=found.low,
        high=found.high,
        reach=float(scale.max() / scale[~large].max()),
    )
