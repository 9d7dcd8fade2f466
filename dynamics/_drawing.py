"""Panels of the cockpit page as SVG text: they draw numbers and measure none.

Colors are the page's CSS variables, so that a panel follows the reader's theme.
"""

import html
import math
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

WIDTH, HEIGHT = 340, 216
LEFT, RIGHT, TOP, BOTTOM = 46, 326, 10, 184
KINDS = 10  # colors of the page: --k0 and so on; then they repeat, dotted
BUCKETS = 150  # a longer trace is thinned to its extremes in this many parts
COLUMNS = 120  # a longer heat map is averaged down to this many columns

# From little to much; told apart without color, and on light and dark paper.
HEAT = ((32, 26, 74), (92, 38, 122), (165, 52, 108), (226, 92, 72), (250, 178, 96))


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
    color: str = "var(--ink)"
    style: str = ""
    opacity: float = 1.0
    error: np.ndarray | None = None


class Look(NamedTuple):
    """How a layer is drawn: a color for its kind, an opacity for its depth."""

    color: str
    style: str
    opacity: float


def kind(layer: str) -> str:
    """What a layer shares with those at other depths.

    >>> kind("blocks/11/mlp/up")
    'blocks/*/mlp/up'
    """
    return re.sub(r"\d+", "*", layer)


def natural(layer: str) -> list[tuple[int, int | str]]:
    """A key that sorts block 2 before block 10.

    >>> sorted(["b/10", "b/2"], key=natural)
    ['b/2', 'b/10']
    """
    parts = re.split(r"(\d+)", layer)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def looks(layers: Sequence[str]) -> dict[str, Look]:
    """Colors by kind, fainter with depth.

    >>> looks(["blocks/0/up", "blocks/1/up", "embed"])["blocks/1/up"]
    Look(color='var(--k0)', style='', opacity=0.45)
    """
    kinds = list(dict.fromkeys(map(kind, layers)))
    found = {}
    for number, name in enumerate(kinds):
        members = [layer for layer in layers if kind(layer) == name]
        for depth, layer in enumerate(members):
            opacity = 1 - 0.55 * depth / max(len(members) - 1, 1)
            style = "" if number < KINDS else "dotted"
            found[layer] = Look(f"var(--k{number % KINDS})", style, round(opacity, 2))
    return {layer: found[layer] for layer in layers}


def short(value: float) -> str:
    """A number as on an axis.

    >>> [short(v) for v in (0.003, 1e-4, 0.5, 1500.0, 2e6, 0.0)]
    ['3e-3', '1e-4', '0.5', '1500', '2e6', '0']
    """
    if value == 0 or 0.01 <= abs(value) < 1e4:
        return f"{value:.4g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def ticks(low: float, high: float, log: bool) -> list[float]:
    """Round numbers within a range, about four.

    >>> ticks(0.0, 10.0, log=False)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    >>> ticks(1e-6, 1e-2, log=True)
    [1e-06, 1e-05, 0.0001, 0.001, 0.01]
    """
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for stride, digits in ((1, (1,)), (1, (1, 3)), (1, (1, 2, 5))):
            stride = max(stride, -(-(len(decades) - 1) // 6))
            found = [float(f"{d}e{k}") for k in decades[::stride] for d in digits]
            found = [tick for tick in found if low <= tick <= high]
            if len(found) >= 3:
                return found
    least = (high - low) / 5
    unit = 10.0 ** math.floor(math.log10(least))
    step = unit * next(s for s in (1, 2, 2.5, 5, 10) if s * unit >= least * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{n * step:.10g}") for n in range(first, last + 1)]


def thin(step: np.ndarray, value: np.ndarray) -> np.ndarray:
    """The points of a trace that are drawn: of each part, its ends and its extremes.

    A gap is kept where it fills a part.

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


def _map(
    low: float, high: float, start: float, end: float, log: bool
) -> Callable[[np.ndarray | float], np.ndarray]:
    """From values to places; NaN where the axis has none."""

    def position(value: np.ndarray | float) -> np.ndarray:
        value = np.asarray(value, float)
        a, b = low, high
        if log:
            value = np.log10(np.where(value > 0, value, np.nan))
            a, b = math.log10(low), math.log10(high)
        return start + (value - a) / (b - a) * (end - start)

    return position


def runs(seen: np.ndarray) -> list[np.ndarray]:
    """The stretches without a gap, as indices.

    >>> runs(np.array([True, True, False, True]))
    [array([0, 1]), array([3])]
    """
    index = np.flatnonzero(seen)
    parts = np.split(index, np.flatnonzero(np.diff(index) > 1) + 1)
    return [part for part in parts if len(part)]


def _points(x: np.ndarray, y: np.ndarray) -> str:
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))


def _trace(
    trace: Trace, across: Callable, up: Callable, floor: float, ceiling: float
) -> str:
    kept = thin(trace.step, trace.value)
    step, value = trace.step[kept], trace.value[kept]
    # Only a prediction far off leaves the picture: it goes on where it comes back.
    value = np.where((value >= floor) & (value <= ceiling), value, np.nan)
    x, y = across(step), up(value)
    drawn = []
    if trace.error is not None:
        error = trace.error[kept]
        low = up(np.clip(value - error, floor, ceiling))
        high = up(np.clip(value + error, floor, ceiling))
        for part in runs(np.isfinite(low + high + x)):
            if len(part) > 1:
                back = part[::-1]
                around = _points(x[part], low[part]), _points(x[back], high[back])
                drawn.append(f'<path class="band" d="M{around[0]} L{around[1]}z"/>')
    strokes: list[str] = []
    dots: list[str] = []
    for part in runs(np.isfinite(x + y)):
        path = f"M{_points(x[part], y[part])}"
        # A point between two gaps has no line: a stroke without length is a dot.
        if len(part) > 1:
            strokes.append(path)
        else:
            dots.append(path + "h0")
    if strokes:
        drawn.append(f'<path d="{" ".join(strokes)}"/>')
    if dots:
        drawn.append(f'<path class="dots" d="{" ".join(dots)}"/>')
    last = trace.value[np.isfinite(trace.value)]
    words = trace.name + (f": {short(float(last[-1]))} at the end" if len(last) else "")
    return (
        f'<g class="trace {trace.style}" style="color:{trace.color};'
        f'opacity:{trace.opacity:g}"><title>{html.escape(words)}</title>'
        f"{''.join(drawn)}</g>"
    )


def lines(
    title: str,
    traces: Sequence[Trace],
    steps: tuple[float, float],
    *,
    log_x: bool = False,
    log_y: bool = False,
) -> str | None:
    """Draws traces against the step.

    Args:
      title: what the picture shows, for readers who cannot see it.
      traces: from the back to the front.
      steps: first and last step of the page.
      log_x: whether steps lie on a logarithmic axis; one at 0 is left out.
      log_y: whether values do; one that is not positive is a gap.

    Returns:
      An SVG element; None where no trace has a value to draw.
    """
    values = np.concatenate([trace.value for trace in traces])
    at = np.concatenate([trace.step for trace in traces])
    seen = np.isfinite(values) & ((values > 0) | (not log_y)) & ((at > 0) | (not log_x))
    if not seen.any():
        return None
    floor, ceiling = _limits(_reach(traces, log_y), log_y)
    start, end = (float(at[seen].min()), steps[1]) if log_x else steps
    if start == end:
        start, end = (start / 2, end * 2) if log_x else (start - 1, end + 1)
    across = _map(start, end, LEFT, RIGHT, log_x)
    up = _map(floor, ceiling, BOTTOM, TOP, log_y)
    parts = []
    for tick in ticks(floor, ceiling, log_y):
        y = float(up(tick))
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{RIGHT}"/>'
            f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{short(tick)}</text>"
        )
    for tick in ticks(start, end, log_x):
        x = float(across(tick))
        parts.append(
            f'<path class="tick" d="M{x:.1f} {BOTTOM}v4"/><text x="{x:.1f}" '
            f'y="{BOTTOM + 16}" text-anchor="middle">{short(tick)}</text>'
        )
    parts.append(f'<path class="axis" d="M{LEFT} {BOTTOM}H{RIGHT}"/>')
    parts.append(
        f'<text class="label" x="{RIGHT}" y="{HEIGHT - 3}" text-anchor="end">'
        f"step{', logarithmic' if log_x else ''}</text>"
    )
    parts += [_trace(trace, across, up, floor, ceiling) for trace in traces]
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{html.escape(title)}">{"".join(parts)}</svg>'
    )


def _heat_color(share: float) -> str:
    place = share * (len(HEAT) - 1)
    index = min(int(place), len(HEAT) - 2)
    pairs = zip(HEAT[index], HEAT[index + 1], strict=True)
    return "#" + "".join(
        f"{round(a + (place - index) * (b - a)):02x}" for a, b in pairs
    )


def heat_map(title: str, traces: Sequence[Trace]) -> str | None:
    """Draws a row for each trace, colored by the logarithm of its values.

    Args:
      title: what the picture shows, for readers who cannot see it.
      traces: their rows; a step that one lacks is a gap in it.

    Returns:
      An HTML element; None where there is no positive value.
    """
    step = np.unique(np.concatenate([trace.step for trace in traces]))
    values = np.full((len(traces), len(step)), np.nan)
    for row, trace in zip(values, traces, strict=True):
        row[np.searchsorted(step, trace.step)] = trace.value
    logs = np.log10(np.where(values > 0, values, np.nan))
    finite = logs[np.isfinite(logs)]
    if not len(finite):
        return None
    parts = np.array_split(np.arange(logs.shape[1]), min(COLUMNS, logs.shape[1]))
    grid = np.full((len(traces), len(parts)), np.nan)
    for column, part in enumerate(parts):
        seen = np.isfinite(logs[:, part])
        total = np.where(seen, logs[:, part], 0.0).sum(1)
        np.divide(total, seen.sum(1), out=grid[:, column], where=seen.any(1))
    # A warm-up from nothing must not take all of the colors.
    low, high = np.quantile(finite, [0.02, 0.98])
    shares = np.clip((grid - low) / max(high - low, 1e-12), 0, 1)
    rows = []
    for trace, row in zip(traces, shares, strict=True):
        levels: dict[str, list[str]] = {}
        for place in np.flatnonzero(np.isfinite(row)):
            color = _heat_color(round(row[place] * 32) / 32)
            levels.setdefault(color, []).append(f"M{place} 0h1v1h-1z")
        paths = "".join(
            f'<path fill="{c}" d="{"".join(d)}"/>' for c, d in levels.items()
        )
        name = html.escape(trace.name)
        rows.append(
            f'<span class="name" title="{name}">{name}</span>'
            f'<svg viewBox="0 0 {len(parts)} 1" preserveAspectRatio="none">'
            f"{paths}</svg>"
        )
    marks = "".join(f"<span>{short(float(s))}</span>" for s in (step[0], step[-1]))
    ramp = ", ".join(_heat_color(n / 8) for n in range(9))
    return (
        f'<div class="heat" role="img" aria-label="{html.escape(title)}">'
        f'{"".join(rows)}<span></span><span class="ends">{marks}</span></div>'
        f'<div class="scale"><span>{short(10**low)}</span>'
        f'<i style="background:linear-gradient(90deg, {ramp})"></i>'
        f"<span>{short(10**high)}</span></div>"
    )
