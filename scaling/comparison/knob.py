"""What a grid tunes: the optimizer's learning rate, or whatever scale it has instead.

Methods that take their step size from the loss have no learning rate; their bound
``max_learning_rate`` or their momentum is tuned as the others' learning rate is.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

SECTION = "optimizer."
RATE = "optimizer.learning_rate"


@dataclasses.dataclass(frozen=True)
class Knob:
    """The field that a grid tunes.

    Distances along it are those of its logarithm; for a field of ``[0, 1)``, such as a
    momentum, those of the logarithm of its distance from 1.

    Attributes:
      field: Its dotted name in a config, "" where nothing is tuned.
      fraction: Whether its values lie below 1.
    """

    field: str = RATE
    fraction: bool = False

    @property
    def words(self) -> str:
        """Its name in tables and pictures.

        >>> Knob("optimizer.max_learning_rate").words
        'max learning rate'
        >>> Knob("optimizer.inner.learning_rate").words
        'learning rate'
        """
        if self.is_rate:  # one thing, however deep an optimizer has it
            return "learning rate"
        return self.field.removeprefix(SECTION).replace("_", " ").replace(".", " ")

    @property
    def is_rate(self) -> bool:
        """Whether it is a learning rate."""
        return self.field.rpartition(".")[2] == "learning_rate"

    def coordinate(self, values: Any) -> np.ndarray:
        """Where values lie on the axis along which grids are evenly spaced.

        >>> knob = Knob("optimizer.momentum", fraction=True)
        >>> knob.coordinate([0.5, 0.9, 0.99]).round(3)
        array([0.693, 2.303, 4.605])
        """
        values = np.asarray(values, np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            at = -np.log1p(-values) if self.fraction else np.log(values)
        return np.asarray(at)

    def value(self, coordinate: float) -> float:
        """The value at a coordinate."""
        at = -np.expm1(-coordinate) if self.fraction else np.exp(coordinate)
        return float(at)

    def open_ends(self, values: Sequence[float]) -> set[float]:
        """The ends of a grid beyond which a better value may lie.

        Nothing lies beyond an infinite bound, nor beyond 0.

        >>> sorted(Knob().open_ends([0.1, 1.0, float("inf")]))
        [0.1]
        """
        return {v for v in (min(values), max(values)) if np.isfinite(v) and v != 0}

    def at_end(self, value: float, ends: Sequence[float], share: float = 0.05) -> bool:
        """Whether a value lies at an end of an interval beyond which there is more.

        Args:
          value: in the interval.
          ends: its low and its high one.
          share: how much of the interval counts as its end.

        >>> [Knob().at_end(rate, (1e-4, 1e-1)) for rate in (1.2e-4, 1e-3, 9e-2)]
        [True, False, True]
        """
        at, low, high = self.coordinate([value, *ends])
        if not np.isfinite([low, high]).all():
            at, (low, high) = value, ends
        more = self.open_ends(ends)
        reach = share * (high - low)
        below, above = ends[0] in more, ends[1] in more
        return bool((below and at - low < reach) or (above and high - at < reach))


LEARNING_RATE = Knob()
