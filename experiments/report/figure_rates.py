"""Final loss against what is tuned, as pictures: is every optimizer tuned?"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from gnomon.experiments.drawing.canvas import canvas, to_svg
from gnomon.experiments.drawing.colors import CARD, WARN
from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.axis import Axis
from gnomon.experiments.report.look import PANEL, Look, looks, words_of
from gnomon.scaling.comparison.cell import Cell


def learning_rates(analysis: Analysis) -> list[str]:
    """Final loss against learning rate: a panel for each scale."""
    look = looks(analysis.labels)
    panels = {
        (scale, cell.knob): [
            c for c in analysis.cells if (c.scale, c.knob) == (scale, cell.knob)
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
        axis = Axis(cells[0].knob, _values(cells))
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
    axes: Axes, cell: Cell, look: Look, high: float, lane: float, axis: Axis
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
