"""The heat map of a cockpit page, by hand: rows of HTML, whose names stay text."""

import html
from collections.abc import Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, to_hex

from gnomon.experiments.cockpit.lines import Trace, brief

COLUMNS = 120  # a longer heat map is averaged down to this many columns
# From little to much; told apart without color, and on light and dark paper.
_HEAT = LinearSegmentedColormap.from_list(
    "heat", ["#201a4a", "#5c267a", "#a5346c", "#e25c48", "#fab260"]
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
            color = to_hex(_HEAT(round(row[place] * 32) / 32))
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
    marks = "".join(f"<span>{brief(float(s))}</span>" for s in (step[0], step[-1]))
    ramp = ", ".join(to_hex(_HEAT(n / 8)) for n in range(9))
    return (
        f'<div class="heat" role="img" aria-label="{html.escape(title)}">'
        f'{"".join(rows)}<span></span><span class="ends">{marks}</span></div>'
        f'<div class="scale"><span>{brief(10**low)}</span>'
        f'<i style="background:linear-gradient(90deg, {ramp})"></i>'
        f"<span>{brief(10**high)}</span></div>"
    )
