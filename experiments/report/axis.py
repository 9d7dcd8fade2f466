"""The axis of what is tuned, with places for values that no scale has."""

import math
from collections.abc import Sequence

from matplotlib.axes import Axes

from gnomon.experiments.drawing.canvas import set_ticks
from gnomon.experiments.drawing.ticks import log_ticks, short
from gnomon.scaling.comparison.knob import Knob


class Axis:
    """Places the values of grids along a picture.

    An infinite value lies to the right of all others, 0 (and what is below it) on a
    logarithmic axis to the left, each a step of the grid away, and named by its tick.

    Args:
      knob: What is tuned.
      values: Of all settings in the picture, rising; none is NaN.
    """

    def __init__(self, knob: Knob, values: Sequence[float]):
        self.knob = knob
        self._log = not knob.fraction
        inner = [v for v in values if math.isfinite(v) and (v > 0 or not self._log)]
        self._inner = inner or [1.0]
        self._values = values

    def place(self, value: float) -> float:
        """Where a value is drawn."""
        low, high = self._inner[0], self._inner[-1]
        if self._log:
            return (
                high * 2.0 if value == math.inf else value if value > 0 else low / 2.0
            )
        return value

    def prepare(self, axes: Axes) -> None:
        """Sets the scale and the limits."""
        places = [self.place(value) for value in self._values] or self._inner
        low, high = min(places), max(places)
        if self._log:
            axes.set_xscale("log")
            axes.set_xlim(low / 1.35, high * 1.35)
        else:
            pad = 0.1 * (high - low) or 0.1
            axes.set_xlim(low - pad, high + pad)

    def label(self, axes: Axes) -> None:
        """Sets the ticks and the name."""
        axes.set_xlabel(self.knob.words)
        if not self._log:
            axes.set_xticks(self._inner, [short(value) for value in self._inner])
            return
        ticks = log_ticks(self._inner[0] / 1.1, self._inner[-1] * 1.1)
        names = [short(tick) for tick in ticks]
        for value in self._values:
            if value not in self._inner:
                ticks.append(self.place(value))
                names.append("∞" if value == math.inf else short(value))
        set_ticks(axes.xaxis, ticks, names)
