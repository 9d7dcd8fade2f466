"""The pictures of a report, as SVG text. They draw numbers and compute none."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.axis import Axis
from gnomon.experiments.report.curves import Curve
from gnomon.experiments.report.profiles import Profiles
from gnomon.experiments.report.style import (
    COLORS,
    FAINT,
    INK,
    WARNING,
    Look,
    canvas,
    flops,
    log_axis,
    log_ticks,
    looks,
    to_svg,
)
from gnomon.experiments.report.verdict import bracket, overall, times
from gnomon.scaling.comparison.cell import Cell
from gnomon.scaling.comparison.profiles import LIMIT, profile
from gnomon.scaling.comparison.resampling import NO_INTERVAL
from gnomon.scaling.comparison.scale import Scale, family, related
from gnomon.scaling.comparison.speedup import beyond
from gnomon.scaling.fit import Fit

PANEL = (350, 270)
WIDE = (420, 300)


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
        _learning_rate_panel(cells, look, _name(analysis.metric), f"learning-rate-{i}")
        for i, cells in enumerate(panels.values())
    ]


def _values(cells: Sequence[Cell]) -> list[float]:
    """What is tuned, at each point of some grids."""
    found = {s.learning_rate for c in cells for s in c.settings}
    return sorted(value for value in found if not math.isnan(value))


def _learning_rate_panel(
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
            _learning_rate_line(
                axes, cell, look[cell.label], high, 0.97 - 0.05 * i, axis
            )
        untuned = [cell.label for cell in cells if cell.tuned is None]
        if untuned:
            words = f"not tuned: {', '.join(untuned)}"
            axes.set_title(words, loc="right", color=WARNING, fontsize=10, weight=400)
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


def _learning_rate_line(
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
        markerfacecolor=look.color if cell.tuned else "white",
        markeredgecolor="white" if cell.tuned else look.color,
        markeredgewidth=1.5,
        zorder=4,
    )


def loss_curves(
    analysis: Analysis, curves: Mapping[tuple[str, Scale], Curve | None]
) -> tuple[list[str], list[str]]:
    """Loss against step of the best setting: a panel for each scale.

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
            name = _name(next(iter(here.values())).name)
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
    with canvas(WIDE[0], min(_height(_rows(analysis)), 460)) as (figure, axes):
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
                        color=FAINT,
                        fontsize=10,
                        zorder=5,
                        bbox={"color": "white", "alpha": 0.75, "pad": 0.8, "lw": 0},
                    )
        ticks = log_ticks(*axes.get_xlim())
        log_axis(axes.xaxis, ticks, [flops(t) for t in ticks])
        axes.set_xlabel("training compute (FLOP)")
        axes.set_ylabel(f"tuned final {_name(analysis.metric)}")
        title = f"Tuned {_name(analysis.metric)} against training compute"
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
    parts = [part for part in scale.name.split(", ") if not part.endswith(" steps")]
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
            markerfacecolor=look.color if cell.tuned else "white",
            markeredgecolor=look.color,
            linestyle="none",
            zorder=4,
        )


def speedups(analysis: Analysis) -> str:
    """Effective speedup with its interval, a row a scale, and over all; "" if none."""
    rows = _rows(analysis)
    if all(row[2] for row in rows):
        return ""
    look = looks(analysis.labels)
    low, high = _speedup_limits(rows)
    with canvas(WIDE[0], _height(rows)) as (figure, axes):
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.axvline(1, color=INK, linewidth=1.1, zorder=1)
        axes.grid(False)
        axes.grid(True, axis="x")
        axes.spines["left"].set_visible(False)
        for y, row in enumerate(rows):
            _speedup_row(axes, y, row, look[row[1]], (low, high))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_yticks(range(len(rows)), [row[0] for row in rows])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        ticks = _speedup_ticks(low, high)
        log_axis(axes.xaxis, ticks, [f"{t:g}×" for t in ticks])
        axes.set_xlabel(f"compute {analysis.baseline} needs / compute used")
        return to_svg(figure, "speedup", "Effective speedup at each scale")


def _rows(analysis: Analysis) -> list[tuple]:
    """What the speedup figure shows: name, label, reason, numbers, whether overall."""
    several = len(analysis.summaries) > 1
    rows: list[tuple] = []
    for scale in analysis.scales:
        for c in analysis.comparisons:
            if c.scale == scale:
                name = f"{scale.name}, {c.label}" if several else scale.name
                value = (c.log_speedup, c.log_interval, c.limits, c.reach)
                words = (
                    times(c.log_speedup, c.limits, c.reach),
                    bracket(c.log_interval, c.limits, c.reach),
                )
                rows.append((name, c.label, c.reason, *value, words, False))
    for s in analysis.summaries:
        name = f"all, {s.label}" if several else "all scales"
        if s.scales[0] > 1:
            # An open end goes on from where the runs leave it.
            low, high = (
                end if math.isinf(known) else known
                for end, known in zip(s.log_interval, s.known, strict=True)
            )
            limits = (low, high)
            value = (s.log_speedup, s.known, limits, s.reach)
            rows.append((name, s.label, s.reason, *value, overall(s), True))
    return rows


def _height(rows: Sequence[tuple]) -> int:
    return max(WIDE[1], 80 + 40 * len(rows))


def _speedup_limits(rows: Sequence[tuple]) -> tuple[float, float]:
    ends = [0.0]
    for _, _, reason, log, interval, limits, *_ in rows:
        if not reason:
            for end in (log, *interval):
                ends.append(min(max(end, limits[0]), limits[1]))
    logs = [end for end in ends if abs(end) < math.log(6)]
    least, most = min(logs), max(logs)
    pad = 0.1 * max(most - least, 0.1)
    return math.exp(min(least - pad, -0.08)), math.exp(max(most + pad, 0.08))


def _speedup_row(
    axes: Axes, y: int, row: tuple, look: Look, view: tuple[float, float]
) -> None:
    _, _, reason, log, interval, limits, reach, said, total = row
    at = axes.get_yaxis_transform()
    if reason:
        words = "untuned" if "untuned" in reason else "no speedup"
        axes.text(1.02, y, words, transform=at, va="center", color=FAINT)
        return
    shown = said[0].replace("x", "×")
    known = interval != NO_INTERVAL
    weight = "bold" if total and known else "normal"
    axes.text(
        1.02,
        y - 0.17 * known,
        shown,
        transform=at,
        va="center",
        color=INK,
        fontweight=weight,
    )
    if known:
        axes.text(
            1.02,
            y + 0.2,
            said[1],
            transform=at,
            va="center",
            color=FAINT,
            fontsize=10,
        )
    if interval != NO_INTERVAL:
        inner = [max(limits[0], math.log(view[0])), min(limits[1], math.log(view[1]))]
        ends = [min(max(end, inner[0]), inner[1]) for end in interval]
        axes.plot(
            np.exp(ends),
            [y, y],
            color=look.color,
            linewidth=4 if total else 2.6,
            alpha=0.9 if total else 0.55,
        )
        # An arrow where the interval goes on beyond what is shown.
        for end, shown, mark in zip(interval, ends, ("<", ">"), strict=True):
            if end != shown:
                axes.plot(math.exp(shown), y, mark, color=look.color, markersize=6)
    inside = min(max(log, limits[0], math.log(view[0])), limits[1], math.log(view[1]))
    axes.plot(
        math.exp(inside),
        y,
        "D" if total else look.marker,
        markersize=8 if total else 7,
        markerfacecolor="white" if beyond(log, reach) else look.color,
        markeredgecolor=look.color if beyond(log, reach) else "white",
        zorder=4,
    )


def _speedup_ticks(low: float, high: float) -> list[float]:
    for candidates in (
        (0.1, 0.2, 0.5, 1, 2, 5, 10),
        (0.25, 0.5, 0.7, 1, 1.4, 2, 3, 4),
        (0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.8),
        (0.9, 0.95, 1, 1.05, 1.1),
    ):
        ticks = [float(c) for c in candidates if low <= c <= high]
        if len(ticks) >= 3:
            step = 1 + len(ticks) // 7
            return ticks[ticks.index(1.0) % step :: step]
    return [1.0]


def _name(metric: str) -> str:
    return metric.replace("_", " ").replace("train ", "training ")


def law(fit: Fit, baseline: str, metric: str) -> str:
    """The baseline's law with its band, through the runs it was fitted to."""
    by = "tokens" if "tokens" in fit.columns else "compute"
    sizes = np.unique(fit.columns.get("params", np.zeros(1)))
    span = fit.columns[by]
    with canvas(*WIDE) as (figure, axes):
        axes.set_xscale("log")
        x = np.geomspace(span.min() / 1.3, 2 * span.max(), 60)
        for i, size in enumerate(sizes):
            color = COLORS[i % len(COLORS)]
            at: dict[str, Any] = {by: x}
            if by == "tokens":
                at["params"] = np.full_like(x, size)
            found = fit.predict_interval(**at)
            axes.fill_between(x, found.low, found.high, color=color, alpha=0.15, lw=0)
            axes.plot(x, found.value, color=color, linewidth=1.3)
            mine = fit.columns.get("params", np.zeros(len(span))) == size
            axes.scatter(span[mine], fit.measured[mine], s=13, color=color, lw=0)
            if by == "tokens":
                axes.annotate(
                    f"{size:,.0f} parameters",
                    (x[-1], found.value[-1]),
                    xytext=(-2, 4),
                    textcoords="offset points",
                    ha="right",
                    color=color,
                    fontsize=10,
                )
        axes.margins(x=0)
        ticks = log_ticks(*axes.get_xlim())
        unit = "FLOP" if by == "compute" else ""
        log_axis(axes.xaxis, ticks, [f"{flops(t)}{unit}" for t in ticks])
        axes.set_xlabel("training compute" if by == "compute" else "tokens or examples")
        axes.set_ylabel(f"tuned final {_name(metric)}")
        return to_svg(figure, "law", f"{baseline}'s law of {_name(metric)}")


def performance_profiles(found: Profiles) -> str:
    """Share of workloads within a factor of the fastest, a line an optimizer."""
    look = looks(found.labels)
    factors = np.geomspace(1.0, LIMIT, 200)
    shares = profile(found.times, factors)
    with canvas(*WIDE) as (figure, axes):
        axes.set_xscale("log")
        for i, label in enumerate(found.labels):
            # Lines that lie on each other stay visible beside each other.
            offset = 0.008 * (i - (len(found.labels) - 1) / 2)
            axes.step(
                factors, shares[i] + offset, where="post", color=look[label].color
            )
        axes.set_xlim(1.0, LIMIT)
        axes.set_ylim(-0.05, 1.05)
        ticks = [1.0, 1.5, 2.0, 3.0, 4.0]
        log_axis(
            axes.xaxis, ticks, [f"{tick:g}\N{MULTIPLICATION SIGN}" for tick in ticks]
        )
        axes.set_xlabel("steps, over those of the fastest")
        axes.set_ylabel("share of workloads")
        return to_svg(figure, "profiles", "Performance profiles over the workloads")
