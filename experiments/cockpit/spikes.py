"""Loss spikes on a cockpit page: marks on the loss, and what is known of each."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

from gnomon.experiments.cockpit.lines import brief
from gnomon.experiments.records.metrics import is_number

DONE = {"record": "taken", "skip": "skipped"}
SHOWN = 50  # spikes that the table lists before it stops
STYLES = """
.spikes { border-collapse: collapse; width: 100%; font-size: 0.86rem; }
.spikes th, .spikes td { text-align: right; padding: 3px 10px; vertical-align: top;
  border-bottom: 1px solid var(--rule); font-variant-numeric: tabular-nums; }
.spikes th { color: var(--soft); font-weight: 600; }
.spikes th:last-child, .spikes td:last-child { text-align: left; }
"""
HEADS = ("step", "batch", "loss", "gradient norm", "what was done", "layers")


def spikes_of(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The records of spikes that rows of metrics hold, in their order.

    >>> spikes_of([{"step": 8, "spikes": [{"step": 5}]}, {"step": 9, "spikes": None}])
    [{'step': 5}]
    """
    found = [row.get("spikes") for row in rows]
    records = [r for several in found if isinstance(several, list) for r in several]
    return [r for r in records if isinstance(r, Mapping) and is_number(r.get("step"))]


def marks_of(spikes: Sequence[Mapping[str, Any]]) -> list[float]:
    """Where spikes are marked: at the count of steps that ends with theirs."""
    return sorted({float(spike["step"]) + 1 for spike in spikes})


def table(spikes: Sequence[Mapping[str, Any]]) -> str:
    """What is known of spikes, as a table."""
    heads = "".join(f"<th>{head}</th>" for head in HEADS)
    rows = "".join(
        "<tr>"
        + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(s))
        + "</tr>"
        for s in spikes[:SHOWN]
    )
    more = len(spikes) - SHOWN
    said = f'<p class="about">and {more:,} more</p>' if more > 0 else ""
    return (
        '<p class="about">Steps whose loss or gradient norm stood above those before'
        " them, counted from 0; the bounds in brackets. Of the layers, the norm of the"
        " gradient in units of its average.</p>\n"
        f'<table class="spikes"><tr>{heads}</tr>{rows}</table>{said}'
    )


def _cells(spike: Mapping[str, Any]) -> tuple[str, ...]:
    layers = spike.get("layers")
    shares = layers.items() if isinstance(layers, Mapping) else ()
    done = DONE.get(str(spike.get("action")), f"back to step {spike.get('back_to')}")
    return (
        f"{spike['step']:,}",
        _number(spike, "batch", "{:,}"),
        _bounded(spike, "loss"),
        _bounded(spike, "gradient_norm"),
        done,
        ", ".join(
            f"{name} {brief(float(share))}x"
            for name, share in shares
            if is_number(share)
        ),
    )


def _bounded(spike: Mapping[str, Any], name: str) -> str:
    bound = f"{name}_bound"
    limit = f" ({brief(spike[bound])})" if is_number(spike.get(bound)) else ""
    return (brief(spike[name]) if is_number(spike.get(name)) else "") + limit


def _number(spike: Mapping[str, Any], name: str, form: str) -> str:
    return form.format(spike[name]) if is_number(spike.get(name)) else ""
