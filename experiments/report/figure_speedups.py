"""Effective speedups as a picture."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from gnomon.experiments.drawing.canvas import canvas, log_ticks, set_ticks, to_svg
from gnomon.experiments.drawing.colors import CARD, INK, SOFT
from gnomon.experiments.report.analysis import Analysis
from gnomon.experiments.report.factors import at_scale, overall
from gnomon.experiments.report.look import WIDE, Look, looks
from gnomon.scaling.comparison.resampling import NO_INTERVAL
from gnomon.scaling.comparison.speedup import beyond


def speedups(analysis: Analysis) -> str:
    """Effective speedup with its interval, a row a scale, and over all; "" if none."""
    rows = rows_of(analysis)
    if all(row[2] for row in rows):
        return ""
    look = looks(analysis.labels)
    low, high = _speedup_limits(rows)
    with canvas(WIDE[0], height_of(rows)) as (figure, axes):
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
        ticks = log_ticks(low, high)
        set_ticks(axes.xaxis, ticks, [f"{t:g}×" for t in ticks])
        axes.set_xlabel(f"compute {analysis.baseline} needs / compute used")
        return to_svg(figure, "speedup", "Effective speedup at each scale")


def rows_of(analysis: Analysis) -> list[tuple]:
    """What the speedup figure shows: name, label, reason, numbers, whether overall."""
    several = len(analysis.summaries) > 1
    rows: list[tuple] = []
    for scale in analysis.scales:
        for c in analysis.comparisons:
            if c.scale == scale:
                name = f"{scale.name}, {c.label}" if several else scale.name
                value = (c.log_speedup, c.log_interval, c.limits, c.reach)
                rows.append((name, c.label, c.reason, *value, at_scale(c), False))
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


def height_of(rows: Sequence[tuple]) -> int:
    """The height of the speedup figure."""
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
        axes.text(1.02, y, words, transform=at, va="center", color=SOFT)
        return
    known = interval != NO_INTERVAL
    bold: Any = {"color": INK, "fontweight": "bold" if total and known else "normal"}
    number = said[0].replace("x", "×")
    axes.text(1.02, y - 0.17 * known, number, transform=at, va="center", **bold)
    if known:
        small: Any = {"color": SOFT, "fontsize": 10}
        axes.text(1.02, y + 0.2, said[1], transform=at, va="center", **small)
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
        markerfacecolor=CARD if beyond(log, reach) else look.color,
        markeredgecolor=look.color if beyond(log, reach) else CARD,
        zorder=4,
    )
