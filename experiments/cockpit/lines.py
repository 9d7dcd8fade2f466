"""Lines of a cockpit page against the step: they draw numbers and measure none."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from gnomon.experiments.drawing import canvas
from gnomon.experiments.drawing.colors import INK, WARN
from gnomon.experiments.drawing.ticks import short

SIZE = (340, 216)
MARGINS = (46, 14, 32, 10)
BUCKETS = 150  # a longer trace is thinned to its extremes in this many parts
STYLES = {"dashed": {"linestyle": (0, (4, 3)), "linewidth": 1.2}}
STYLES |= {"dotted": {"linestyle": (0, (1, 2))}, "whole": {"linewidth": 2.4}}


class Trace(NamedTuple):
    """One line of a panel.

    Attributes:
      name: what the reader sees when pointing at it.
      step: [points], rising.
      value: [points], NaN where there is none.
      color: a CSS color.
      style: CSS classes: ``whole``, ``dashed``, ``dotted``; and ``far`` for what may
        lie outside of the picture.
      opacity: of the line.
      error: [points], half of the height of the band around it, or None.
    """

    name: str
    step: np.ndarray
    value: np.ndarray
    color: str = INK
    style: str = ""
    opacity: float = 1.0
    error: np.ndarray | None = None


def thin(step: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The points of a trace that are drawn: of each part, its ends and its extremes.

    A gap is kept where it fills a part. By hand, since Matplotlib leaves out points on
    a line and no others.

    >>> thin(np.arange(3), np.ones(3))
    array([0, 1, 2])
    >>> len(thin(np.arange(90_000), np.zeros(90_000))) <= 4 * BUCKETS
    True
    """
    if len(step) <= 4 * BUCKETS:
        return np.arange(len(step))
    kept: set[int] = set()
    for part in np.array_split(np.arange(len(step)), BUCKETS):
        seen = part[np.isfinite(value[part])]
        if len(seen):
            extremes = seen[[np.argmin(value[seen]), np.argmax(value[seen])]]
            kept |= {seen[0], seen[-1], *extremes}
        else:
            kept.add(part[0])
    return np.array(sorted(kept))


def _limits(values: np.ndarray, log: bool) -> tuple[float, float]:
    """The range of an axis, with room at its ends."""
    low, high = float(values.min()), float(values.max())
    if log:
        pad = max((high / low) ** 0.05, 1.05)
        return low / pad, high * pad
    pad = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _reach(traces: Sequence[Trace], log: bool) -> np.ndarray:
    """The values that an axis must show.

    Bands and predictions take room, but one that is far off must not flatten the lines.
    """
    near = [trace.value for trace in traces if "far" not in trace.style]
    measured = np.concatenate(near or [trace.value for trace in traces])
    measured = measured[np.isfinite(measured) & ((measured > 0) | (not log))]
    if not len(measured):
        return _reach([t._replace(style="") for t in traces], log)
    low, high = measured.min(), measured.max()
    room = (low / 5, high * 5) if log else (2 * low - high, 2 * high - low)
    others = [trace.value for trace in traces if "far" in trace.style]
    for trace in traces:
        if trace.error is not None:
            others += [trace.value - trace.error, trace.value + trace.error]
    extra = np.concatenate([*others, measured[:1]])
    return np.concatenate([measured, np.clip(extra[np.isfinite(extra)], *room)])


def lines(
    title: str,
    traces: Sequence[Trace],
    steps: tuple[float, float],
    *,
    log_x: bool = False,
    log_y: bool = False,
    marks: Sequence[float] = (),
) -> str | None:
    """Draws traces against the step.

    Args:
      title: what the picture shows, for readers who cannot see it.
      traces: from the back to the front.
      steps: first and last step of the page.
      log_x: whether steps lie on a logarithmic axis; one at 0 is left out.
      log_y: whether values do; one that is not positive is a gap.
      marks: steps that a line across the picture marks, of loss spikes.

    Returns:
      An SVG element; None where no trace has a value to draw.
    """
    values = np.concatenate([trace.value for trace in traces])
    at = np.concatenate([trace.step for trace in traces])
    seen = np.isfinite(values) & ((values > 0) | (not log_y)) & ((at > 0) | (not log_x))
    if not seen.any():
        return None
    limits = _limits(_reach(traces, log_y), log_y)
    start, end = (float(at[seen].min()), steps[1]) if log_x else steps
    if start == end:
        start, end = (start / 2, end * 2) if log_x else (start - 1, end + 1)
    said = {}
    with canvas.canvas(*SIZE, margins=MARGINS) as (figure, axes):
        _prepare(axes, "x", (start, end), log_x)
        _prepare(axes, "y", limits, log_y)
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"step{', logarithmic' * log_x}", loc="right", labelpad=0)
        for number, trace in enumerate(traces):
            gid = f"trace-{number}"
            _draw(axes, trace, gid, limits)
            last = trace.value[np.isfinite(trace.value)]
            ends = f": {brief(last[-1])} at the end" if len(last) else ""
            said[gid] = trace.name + ends, trace.style
        for number, mark in enumerate(marks):
            gid, place = f"mark-{number}", min(max(mark, start), end)
            axes.axvline(place, gid=gid, color=WARN, linewidth=0.8, zorder=1.5)
            said[gid] = f"spike at step {mark - 1:,.0f}", ""
        name = re.sub(r"\W+", "-", title.lower())
        return canvas.to_svg(figure, name, title, said)


def brief(value: float) -> str:
    """A number of a cockpit page."""
    return short(float(value), digits=4, plain=0.01)


def _prepare(axes: Axes, which: str, limits: tuple[float, float], log: bool) -> None:
    """Sets the limits of an axis, its scale and its ticks."""
    axes.set(**{f"{which}scale": "log" if log else "linear", f"{which}lim": limits})
    ticks = canvas.log_ticks(*limits) if log else canvas.even_ticks(*limits)
    axis = axes.xaxis if which == "x" else axes.yaxis
    canvas.set_ticks(axis, ticks, [brief(tick) for tick in ticks])


def _draw(axes: Axes, trace: Trace, gid: str, limits: tuple[float, float]) -> None:
    kept = thin(trace.step, trace.value)
    step, value = trace.step[kept], trace.value[kept]
    # Only a prediction far off leaves the picture: it goes on where it comes back.
    value = np.where((value >= limits[0]) & (value <= limits[1]), value, np.nan)
    look: dict = {"color": trace.color, "alpha": trace.opacity}
    if trace.error is not None:
        error = trace.error[kept]
        low, high = (np.clip(value + s * error, *limits) for s in (-1, 1))
        axes.fill_between(step, low, high, color=trace.color, alpha=0.16, lw=0)
    style: dict = {"linewidth": 1.3}
    for word in trace.style.split():
        style |= STYLES.get(word, {})
    axes.plot(step, value, gid=gid, **look, **style)
    # A point between two gaps has no line.
    padded = np.pad(np.isfinite(value), 1)
    alone = padded[1:-1] & ~padded[:-2] & ~padded[2:]
    if alone.any():
        axes.plot(step[alone], value[alone], ".", gid=f"dots-{gid}", **look)
