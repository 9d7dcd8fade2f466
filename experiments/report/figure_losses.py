"""Loss against step, and tuned loss against compute, as pictures."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes

from gnomon.experiments.drawing.canvas import canvas, log_ticks, set_ticks, to_svg
from gnomon.experiments.drawing.colors import CARD, SOFT
from gnomon.experiments.drawing.ticks import flops
from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.curves import Curve
from gnomon.experiments.report.figure_speedups import height_of, rows_of
from gnomon.experiments.report.look import PANEL, WIDE, Look, looks, words_of
from gnomon.scaling.comparison.cell import Cell
from gnomon.scaling.comparison.scale import Scale, family, related


def loss_curves(
    analysis: Analysis, curves: Mapping[tuple[str, Scale], Curve | None]
) -> tuple[list[str], list[str]]:
    """Loss against step of the best setting: a panel for each scale.

    Args:
      analysis: what is compared.
      curves: the losses by optimizer and scale; None where nothing is recorded.

    Returns:
      The panels, and the names of curves that are left out of them.
    """
    look = looks(analysis.labels)
    panels, alone = [], []
    drawn = {key: curve for key, curve in curves.items() if curve is not None}
    # A panel with one optimizer compares nothing; it is left out beside others.
    sizes = [sum(s == scale for _, s in drawn) for scale in analysis.scales]
    least = max(1, min(2, max(sizes)))
    for i, scale in enumerate(analysis.scales):
        here = {label: curve for (label, s), curve in drawn.items() if s == scale}
        if len(here) < least:
            alone += [f"{label} at {scale.name} (alone there)" for label in here]
            continue
        with canvas(*PANEL) as (figure, axes):
            axes.set_title(scale.name, loc="left")
            for label, curve in here.items():
                axes.fill_between(
                    curve.step,
                    curve.low,
                    curve.high,
                    color=look[label].color,
                    alpha=0.15,
                    linewidth=0,
                )
                axes.plot(curve.step, curve.mean, color=look[label].color)
            bottom = min(float(c.low.min()) for c in here.values())
            # The first tenth of a run falls too far to share an axis with the rest.
            top = max(
                float(c.high[c.step >= 0.1 * c.step[-1]].max()) for c in here.values()
            )
            pad = 0.06 * max(top - bottom, 1e-6)
            axes.set_ylim(bottom - pad, top + pad)
            axes.set_xlim(0, max(float(c.step[-1]) for c in here.values()))
            axes.locator_params(nbins=5)
            axes.set_xlabel("step")
            name = words_of(next(iter(here.values())).name)
            axes.set_ylabel(name)
            title = f"{name} of the tuned runs by step, {scale.name}"
            panels.append(to_svg(figure, f"curves-{i}", title))
    return panels, alone


def loss_against_compute(analysis: Analysis) -> str:
    """Tuned loss against training compute, with the range over seeds.

    "" if there is none, or if losses are of several data sets, which share no axis.
    """
    look = looks(analysis.labels)
    cells = [c for c in analysis.cells if c.optimum is not None and c.compute > 0]
    if len({c.scale.data for c in cells}) != 1:
        return ""
    # As tall as the speedups that stand beside it, within reason.
    with canvas(WIDE[0], min(height_of(rows_of(analysis)), 460)) as (figure, axes):
        axes.set_xscale("log")
        computes = [c.compute for c in cells]
        span = math.log(max(computes) / min(computes))
        axes.set_xlim(
            min(computes) / math.exp(0.15 * span + 0.1),
            max(computes) * math.exp(0.05 * span + 0.1),
        )
        for label in analysis.labels:
            for name, line in _lines([c for c in cells if c.label == label]):
                _compute_line(axes, line, look[label])
                if name and label == analysis.baseline:
                    axes.annotate(
                        name,
                        (line[0].compute, _best_losses(line[0]).mean()),
                        xytext=(-7, -2),
                        textcoords="offset points",
                        ha="right",
                        va="top",
                        color=SOFT,
                        fontsize=10,
                        zorder=5,
                        bbox={"color": CARD, "alpha": 0.75, "pad": 0.8, "lw": 0},
                    )
        ticks = log_ticks(*axes.get_xlim())
        set_ticks(axes.xaxis, ticks, [flops(t) for t in ticks])
        axes.set_xlabel(f"training compute ({analysis.source.unit})")
        axes.set_ylabel(f"tuned final {words_of(analysis.metric)}")
        title = f"Tuned {words_of(analysis.metric)} against training compute"
        return to_svg(figure, "compute", title)


def _lines(cells: Sequence[Cell]) -> list[tuple[str, list[Cell]]]:
    """An optimizer's cells as curves: over lengths of a model, or over models."""
    ordered = sorted(cells, key=lambda c: c.compute)
    by_model: dict[tuple, list[Cell]] = {}
    for cell in ordered:
        by_model.setdefault(cell.scale.model, []).append(cell)
    if all(len(line) == 1 for line in by_model.values()):
        by_family: dict[tuple, list[Cell]] = {}
        for cell in ordered:
            by_family.setdefault(family(cell.scale), []).append(cell)
        lines = list(by_family.values())
        if all(related(cell.scale for cell in line) for line in lines):
            return [("", line) for line in lines]
    return [(_model_name(line[0].scale), line) for line in by_model.values()]


def _model_name(scale: Scale) -> str:
    parts = [
        part
        for part in scale.name.split(", ")
        if not part.endswith((" steps", " tokens"))
    ]
    return ", ".join(parts)


def _best_losses(cell: Cell) -> np.ndarray:
    optimum = cell.optimum
    assert optimum is not None  # callers keep only cells with one
    return optimum.losses + (cell.lowest[1] - optimum.mean)


def _compute_line(axes: Axes, line: Sequence[Cell], look: Look) -> None:
    x = np.array([c.compute for c in line])
    losses = [_best_losses(c) for c in line]
    mean = np.array([one.mean() for one in losses])
    low, high = [np.array([f(one) for one in losses]) for f in (np.min, np.max)]
    axes.fill_between(x, low, high, color=look.color, alpha=0.14, linewidth=0)
    if len(line) == 1:  # a band needs two points; a lone one gets a bar
        axes.vlines(x, low, high, color=look.color, alpha=0.35, linewidth=4)
    axes.plot(x, mean, color=look.color, zorder=3)
    for cell, loss in zip(line, mean, strict=True):
        axes.plot(
            cell.compute,
            loss,
            look.marker,
            markersize=6,
            markerfacecolor=look.color if cell.tuned else CARD,
            markeredgecolor=look.color,
            linestyle="none",
            zorder=4,
        )
