"""Final loss against what is tuned, as pictures: is every optimizer tuned?"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from gnomon.experiments.drawing.canvas import canvas, log_ticks, set_ticks, to_svg
from gnomon.experiments.drawing.colors import CARD, WARN
from gnomon.experiments.drawing.ticks import short
from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.look import PANEL, Look, looks, words_of
from gnomon.scaling.comparison.cell import Cell
from gnomon.scaling.comparison.knob import Knob


class KnobAxis:
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
        low, high = self._inner[0], self._inner[-1]
        ticks = self._inner
        if self._log and low < high:
            ticks = log_ticks(low / 1.1, high * 1.1)
        names = [short(tick) for tick in ticks]
        for value in self._values:
            if value not in self._inner and self._log:
                ticks = [*ticks, self.place(value)]
                names.append("∞" if value == math.inf else short(value))
        set_ticks(axes.xaxis, ticks, names)


def learning_rates(analysis: Analysis) -> list[str]:
    """Final loss against learning rate: a panel for each scale."""
    look = looks(analysis.labels)
    panels = {
        (scale, cell.knob.words): [
            c
            for c in analysis.cells
            if (c.scale, c.knob.words) == (scale, cell.knob.words)
        ]
        for scale in analysis.scales
        for cell in analysis.cells
        if cell.scale == scale and _values([cell])
    }
    return [
        _panel(cells, look, words_of(analysis.metric), f"learning-rate-{i}")
        for i, cells in enumerate(panels.values())
    ]


def _values(cells: Sequence[Cell]) -> list[float]:
    """What is tuned, at each point of some grids."""
    found = {s.learning_rate for c in cells for s in c.settings}
    return sorted(value for value in found if not math.isnan(value))


def _panel(
    cells: Sequence[Cell], look: Mapping[str, Look], metric: str, name: str
) -> str:
    scale = cells[0].scale
    with canvas(*PANEL) as (figure, axes):
        axes.set_title(scale.name, loc="left")
        axis = KnobAxis(cells[0].knob, _values(cells))
        axis.prepare(axes)
        low, high = _loss_limits(cells)
        axes.set_ylim(low, high)
        axes.locator_params(axis="y", nbins=5)
        for i, cell in enumerate(cells):
            _line(axes, cell, look[cell.label], high, 0.97 - 0.05 * i, axis)
        untuned = [cell.label for cell in cells if cell.tuned is None]
        if untuned:
            words = f"not tuned: {', '.join(untuned)}"
            axes.set_title(words, loc="right", color=WARN, fontsize=10, weight=400)
        axis.label(axes)
        axes.set_ylabel(f"final {metric}")
        words = f"Final {metric} by {axis.knob.words}, {scale.name}"
        return to_svg(figure, name, words)


def _loss_limits(cells: Sequence[Cell]) -> tuple[float, float]:
    """Limits that show the valleys and leave the worst settings off the picture."""
    means = [s.mean for c in cells for s in c.settings if np.isfinite(s.mean)]
    if not means:
        return 0.0, 1.0
    low, top = min(means), float(np.quantile(means, 0.8))
    span = max(top - low, 0.02 * abs(low), 1e-6)
    return low - 0.15 * span, low + 1.5 * span


def _line(
    axes: Axes, cell: Cell, look: Look, high: float, lane: float, axis: KnobAxis
) -> None:
    envelope: dict[float, float] = {}
    for setting in cell.settings:
        rate, mean = axis.place(setting.learning_rate), setting.mean
        # Marks for what has no place in the picture lie in a lane at its top edge.
        off = "x" if setting.diverged else "^" if mean > high else ""
        if off:
            axes.plot(
                rate,
                lane,
                off,
                transform=axes.get_xaxis_transform(),
                color=look.color,
                markersize=5.5,
                alpha=0.9,
            )
        if np.isfinite(mean):
            envelope[rate] = min(mean, envelope.get(rate, math.inf))
            axes.scatter(
                np.full(len(setting.losses), rate),
                setting.losses,
                s=13,
                color=look.color,
                alpha=0.35,
                linewidths=0,
            )
    rates = sorted(envelope)
    axes.plot(
        rates,
        [envelope[rate] for rate in rates],
        color=look.color,
        marker=look.marker,
        markersize=4,
    )
    if cell.optimum is None:
        return
    value, loss = cell.lowest
    axes.plot(
        axis.place(value),
        loss,
        look.marker,
        markersize=10,
        markerfacecolor=look.color if cell.tuned else CARD,
        markeredgecolor=CARD if cell.tuned else look.color,
        markeredgewidth=1.5,
        zorder=4,
    )
