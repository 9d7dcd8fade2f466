"""The page itself: what a run recorded, panel by panel, and what it did not."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gnomon.dynamics.layers import ALL
from gnomon.dynamics.names import parse
from gnomon.experiments.cockpit.layers import Look, kind, looks, natural
from gnomon.experiments.cockpit.panels import (
    SECTIONS,
    Columns,
    explanation,
    picture,
    traces_of,
)
from gnomon.experiments.cockpit.spikes import STYLES, marks_of, spikes_of, table
from gnomon.experiments.cockpit.told import told
from gnomon.experiments.drawing import sheet
from gnomon.experiments.drawing.colors import INK
from gnomon.optimizers.mechanisms.diagnostics import meanings

_STYLES = """
h1 { font-size: clamp(1.4rem, 1.1rem + 1.4vw, 2rem); margin: 0; font-weight: 600; }
h2 { margin: 36px 0 12px; }
h3 { font-size: 0.98rem; font-weight: 650; margin: 0; }
p { margin: 0; color: var(--soft); }
.about { margin: 4px 0 18px; }
.panel { background: var(--card); border: 1px solid var(--rule); border-radius: 10px;
  padding: 12px 14px 10px; min-width: 0; display: flex; flex-direction: column; }
.panel p { font-size: 0.86rem; line-height: 1.35; margin-bottom: 8px; }
.panel .picture { margin-top: auto; }
.panel .key { margin-right: 14px; font-size: 0.86rem; }
.wide { grid-column: 1 / -1; }
.heat { display: grid; grid-template-columns: fit-content(40%) minmax(0, 1fr);
  gap: 1px 10px; align-items: center; font-size: 0.8rem; line-height: 16px; }
.heat .name { text-align: right; overflow: hidden; text-overflow: ellipsis;
  white-space: nowrap; color: var(--soft); }
.heat svg { display: block; width: 100%; height: 16px; shape-rendering: crispEdges;
  background: var(--grid); }
.ends, .scale { display: flex; justify-content: space-between; color: var(--soft); }
.scale { gap: 10px; align-items: center; max-width: 420px; margin: 8px 0 4px auto;
  font-size: 0.8rem; }
.scale i { flex: 1; height: 8px; border-radius: 4px; }
.absent { color: var(--soft); padding-left: 1.2em; font-size: 0.94rem; }
"""


def cockpit(
    rows: Sequence[Mapping[str, Any]], *, title: str = "Cockpit of a run"
) -> str:
    """Draws what the probes of a run recorded.

    Args:
      rows: as in ``metrics.jsonl``: each has a ``step`` and what was measured there
        under the keys of `gnomon.dynamics.names`, beside ``train_loss``,
        ``validation_loss`` and ``learning_rate``, and what the optimizer says under
        ``diagnostics/``, and the records of ``spikes``. A value that is None or not
        finite is a gap in its line.
      title: the page's heading.

    Returns:
      The text of an HTML file that loads nothing from anywhere. What no row has is
      left out, and a line names the config field that would record it.

    Raises:
      ValueError: there are no rows, or one of them has no step.

    Example:
      >>> rows = [{"step": s, "train_loss": 3 / s} for s in range(1, 9)]
      >>> text = cockpit(rows, title="A small run")
      >>> "A small run" in text, "config.dynamics.free=True" in text
      (True, True)
    """
    columns = _columns(rows)
    at = [float(row["step"]) for row in rows]
    steps = min(at), max(at)
    spikes = spikes_of(rows)
    names = [name for key in columns if (name := parse(key)) is not None]
    layers = sorted({n.layer for n in names if n.layer not in (None, ALL)}, key=natural)
    look = looks(layers)
    sections: dict[str, list[str]] = {}
    absent = []
    for heading, panels in SECTIONS.items():
        for panel in panels:
            drawn = picture(panel, columns, look, steps, marks_of(spikes))
            if drawn is not None:
                card = _card(panel.title, explanation(panel, columns), drawn)
                sections.setdefault(heading, []).append(card)
                continue
            recorded = any(traces_of(name, columns, look) for name in panel.keys)
            why = (
                "recorded, but never a number that can be drawn"
                if recorded
                else f"not recorded; {panel.field} records it"
            )
            absent.append(f"<li>{html.escape(f'{panel.title}: {why}')}.</li>")
    own = [_card(*panel) for panel in told(columns, meanings(), steps)]
    if own:
        sections["What the optimizer says of its steps"] = own
    first, last = (f"{step:,.0f}" for step in steps)
    about = f"steps {first} to {last} · {len(rows):,} rows · {len(layers)} layers"
    body = [f"<h1>{html.escape(title)}</h1>", f'<p class="about">{about}</p>']
    if look:
        body.append(_legend({kind(name): look[name] for name in layers}))
    body += [
        _section(heading, f'<div class="panels">\n{"".join(cards)}</div>')
        for heading, cards in sections.items()
    ]
    if spikes:
        body.append(_section("Loss spikes", table(spikes)))
    if absent:
        body.append(_section("Left out", f'<ul class="absent">{"".join(absent)}</ul>'))
    return sheet.document(title, _STYLES + STYLES, "\n".join(body))


def _columns(
    rows: Sequence[Mapping[str, Any]],
) -> Columns:
    """Steps and values by key, of the rows that have the key."""
    if not rows:
        raise ValueError("rows is empty: give at least one row of metrics")
    found: dict[str, tuple[list[float], list[float]]] = {}
    ordered = []
    for number, row in enumerate(rows, start=1):
        step = _number(row.get("step"))
        if not math.isfinite(step):
            raise ValueError(f"row {number} has no number under 'step'; each needs one")
        ordered.append((step, row))
    for step, row in sorted(ordered, key=lambda pair: pair[0]):
        for key, value in row.items():
            at, values = found.setdefault(key, ([], []))
            at.append(step)
            values.append(_number(value))
    return {key: (np.array(at), np.array(v)) for key, (at, v) in found.items()}


def _number(value: Any) -> float:
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):  # a metric that is text has no place in a line
        return math.nan


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{html.escape(heading)}</h2>\n{content}\n</section>"


def _legend(kinds: Mapping[str, Look]) -> str:
    """The kinds of layers in their colors."""
    keys = [
        sheet.key("whole model", INK),
        *(sheet.key(name, look.color, look.style) for name, look in kinds.items()),
    ]
    return (
        f'<div class="legend">{"".join(keys)}</div>\n<p class="about">Layers of a kind'
        " grow fainter with depth; point at a line for its name.</p>"
    )


def _card(title: str, explanation: str, picture: str) -> str:
    wide = " wide" if picture.startswith('<div class="heat"') else ""
    return (
        f'<article class="panel{wide}">\n<h3>{html.escape(title)}</h3>\n'
        f"<p>{html.escape(explanation)}</p>\n"
        f'<div class="picture">{picture}</div>\n</article>\n'
    )
