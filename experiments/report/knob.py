"""What a grid tunes: the optimizer's learning rate, or whatever scale it has instead.

Methods that take their step size from the loss have no learning rate; their bound
``max_learning_rate`` or their momentum is tuned as the others' learning rate is.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gnomon.experiments.config.ranges import OPTIMIZER

SECTION = "optimizer."
RATE = "optimizer.learning_rate"
# Taken first among several fields that a grid varies.
FIRST = (RATE, "optimizer.max_learning_rate", "optimizer.momentum")


@dataclasses.dataclass(frozen=True)
class Knob:
    """The field that a grid tunes.

    Distances along it are those of its logarithm; for a field of ``[0, 1)``, such as a
    momentum, those of the logarithm of its distance from 1.

    Attributes:
      field: Its dotted name in a config, "" where nothing is tuned.
    """

    field: str = RATE

    @property
    def words(self) -> str:
        """Its name in tables and pictures.

        >>> Knob("optimizer.max_learning_rate").words
        'max learning rate'
        """
        return self.field.removeprefix(SECTION).replace("_", " ").replace(".", " ")

    @property
    def fraction(self) -> bool:
        """Whether its values lie below 1."""
        allowed = OPTIMIZER.get(self.field.rpartition(".")[2])
        return allowed is not None and allowed.high == 1

    def coordinate(self, values: Any) -> np.ndarray:
        """Where values lie on the axis along which grids are evenly spaced.

        >>> Knob("optimizer.momentum").coordinate([0.0, 0.9, 0.99]).round(3) + 0.0
        array([0.   , 2.303, 4.605])
        """
        values = np.asarray(values, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            return -np.log1p(-values) if self.fraction else np.log(values)

    def value(self, coordinate: float) -> float:
        """The value at a coordinate."""
        at = -np.expm1(-coordinate) if self.fraction else np.exp(coordinate)
        return float(at)

    def beyond(self, last: float, before: float) -> float | None:
        """The value after ``last`` in a grid that came from ``before``.

        Returns:
          None where no such value is allowed.

        >>> Knob().beyond(4e-3, 2e-3), Knob().beyond(0.01, 0.02)
        (0.008, 0.005)
        >>> Knob("optimizer.momentum").beyond(0.9, 0.5)
        0.98
        """
        end, earlier = self.coordinate([last, before])
        with np.errstate(over="ignore"):
            found = float(f"{self.value(2 * end - earlier):.4g}")
        allowed = OPTIMIZER.get(self.field.rpartition(".")[2])
        if not np.isfinite(found) or found == last:
            return None
        if abs(found) > np.finfo(np.float32).max or (found and not np.float32(found)):
            return None
        return found if allowed is None or allowed.allows(found) else None

    def open_ends(self, values: Sequence[float]) -> set[float]:
        """The ends of a grid beyond which a better value may lie.

        Nothing lies beyond an infinite bound, nor beyond 0.

        >>> sorted(Knob().open_ends([0.1, 1.0, float("inf")]))
        [0.1]
        """
        return {v for v in (min(values), max(values)) if np.isfinite(v) and v != 0}


LEARNING_RATE = Knob(RATE)


def knob_of(table: Mapping[str, np.ndarray], rows: np.ndarray) -> Knob:
    """The field that some rows of a run table tune.

    Args:
      table: As of `gnomon.experiments.records.runs.table`.
      rows: Those of one optimizer at one scale.

    Returns:
      The one that the config names in ``tuning.field``; else the learning rate; else,
      of the optimizer's numbers that differ between the rows, the first of `FIRST` or
      of the table; else a bound on the step, if there is one.
    """
    named = table.get("tuning.field")
    if named is not None and isinstance(name := named[rows[0]], str) and name:
        return Knob(SECTION + name)
    numbers = {
        field: {float(v) for v in column[rows] if not np.isnan(v)}
        for field, column in table.items()
        if field.startswith(SECTION) and column.dtype != object
    }
    ordered = sorted(
        numbers, key=lambda f: FIRST.index(f) if f in FIRST else len(FIRST)
    )
    if numbers.get(RATE):
        return Knob(RATE)
    varied = [field for field in ordered if len(numbers[field]) > 1]
    bounds = [field for field in FIRST[1:2] if numbers.get(field)]
    return Knob(next(iter([*varied, *bounds]), ""))
