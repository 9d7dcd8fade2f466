"""From a run table to the cells of a comparison (`gnomon.scaling.comparison.cell`)."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gnomon.experiments.config.fields import OBSERVING, OPERATIONAL, PLACEMENT
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.progress import format_count
from gnomon.experiments.records.direction import why_not
from gnomon.experiments.report.knob import knob_of, searched_in
from gnomon.scaling.comparison.cell import Cell, Setting, tune
from gnomon.scaling.comparison.knob import Knob
from gnomon.scaling.comparison.scale import Key, Scale

Table = Mapping[str, np.ndarray]

# What a grid may vary: the optimizer, and what stands around it.
_AROUND = ("clip.", "parameter_groups", "decay_mask", "spikes.")
_SETTINGS = ("optimizer.", "schedule.", *_AROUND)
# Fields that tell trials of one scale apart, or that change no trained weight.
_WITHIN = ("label", "seed", "static", "id", "status", *_SETTINGS)
_SHOWN = (*OPERATIONAL, *OBSERVING, *PLACEMENT, "evaluate")
_RESULTS = ("final.", "parameters", "compute", "units", "seconds", "tried")
# What a person calls a scale by.
_FIRST = ("model.name", "data.name", "model.width", "model.depth", "model.")
_LENGTHS = ("steps", "tokens")  # the first of them that a table has
_LAST = ("batch", *_LENGTHS)


def cells(
    table: Table, metric: str, interpolate: bool = False, given: bool = False
) -> list[Cell]:
    """Groups a run table into cells and tunes each.

    Args:
      table: columns as `gnomon.experiments.records.runs.table` gives them.
      metric: which final metric, smaller is better, such as ``validation_loss``.
      interpolate: read optima between the points of the grids.
      given: take each setting as tuned, since the table tells of no grids.

    Returns:
      Cells sorted by optimizer (in order of first appearance), then by model size
      and length.

    Raises:
      UserError: No finished trial recorded the metric, or larger is better.
    """
    losses = table.get(f"final.{metric}")
    if losses is None:
        names = [name[6:] for name in table if name.startswith("final.")]
        known = [name for name in names if not why_not(name)]
        have = f"there are: {', '.join(known)}" if known else "no trial has finished"
        have += "; report takes another as --metric" if known else ""
        raise UserError(f"config.report.metric={metric!r}: not recorded; {have}")
    if wrong := why_not(metric):
        raise UserError(
            f"config.report.metric={metric!r}: {wrong}; report takes it as --metric"
        )
    scale_of = _scales(table)
    labels = list(dict.fromkeys(table["label"]))
    rows: dict[tuple[str, Scale], list[int]] = {}
    for row, key in enumerate(zip(table["label"], scale_of, strict=True)):
        rows.setdefault(key, []).append(row)
    order = lambda key: (labels.index(key[0]), _scale_order(key[1]))  # noqa: E731
    found = [
        dataclasses.replace(
            _cell(table, losses, np.array(rows[label, scale]), str(label), scale),
            interpolate=interpolate,
        )
        for label, scale in sorted(rows, key=order)
    ]
    if not given:
        return found
    return [
        dataclasses.replace(cell, status="given") if cell.status == "tuned" else cell
        for cell in found
    ]


def _scale_order(scale: Scale) -> tuple:
    size = scale.parameters if np.isfinite(scale.parameters) else np.inf
    return size, scale.steps, scale.name


def _scales(table: Table) -> list[Scale]:
    """The scale of every row."""
    skipped = _WITHIN + _SHOWN + _RESULTS
    fields = [
        name
        for name, column in table.items()
        if not name.startswith(skipped) and len({_value(v) for v in column}) > 1
    ]
    rank = (*_FIRST, "", *_LAST)
    fields.sort(key=lambda f: next(i for i, r in _ranked(rank) if f.startswith(r)))
    rows = range(len(table["label"]))
    keys = [tuple((f, _value(table[f][i])) for f in fields) for i in rows]
    # A field that only repeats what the ones before it say is left out of names.
    named: list[str] = []
    for field in fields:
        partition = {tuple(kv for kv in key if kv[0] in named) for key in keys}
        finer = {tuple(kv for kv in key if kv[0] in [*named, field]) for key in keys}
        if len(finer) > len(partition):
            named.append(field)
    length = next((name for name in _LENGTHS if name in table), None)
    shown = [f for f in ("model.width", "model.params", *_LENGTHS) if f in table]
    alone = ", ".join(_words(f, _value(table[f][0])) for f in shown) or "all runs"
    parameters: dict[Key, float] = {}
    for key, size in zip(keys, table["parameters"], strict=True):
        if np.isfinite(size):
            parameters[key] = float(size)
    return [
        Scale(
            name=", ".join(_words(f, v) for f, v in key if f in named) or alone,
            model=tuple(kv for kv in key if kv[0] not in _LENGTHS),
            data=tuple(kv for kv in key if kv[0].startswith(("data.", "task"))),
            steps=float(table[length][i]) if length else 0.0,
            parameters=parameters.get(key, float("nan")),
        )
        for i, key in zip(rows, keys, strict=True)
    ]


def _ranked(prefixes: Sequence[str]) -> list[tuple[int, str]]:
    """Prefixes with their ranks, the empty one (which fits all) tried last."""
    return sorted(enumerate(prefixes), key=lambda pair: pair[1] == "")


def _words(field: str, value: Any) -> str:
    shown = f"{value:g}" if isinstance(value, float) else str(value)
    if field == "steps":
        return f"{shown} steps"
    if field in ("tokens", "model.params") and value is not None:
        # Counts of other people's models: billions, not giga.
        count = format_count(value).replace("G", "B")
        return f"{count} {field.removeprefix('model.')}"
    if field in ("model.name", "data.name"):
        return shown.rpartition(".")[2]
    return f"{field.removeprefix('model.').replace('_', ' ')} {shown}"


def _value(value: Any) -> Any:
    """A cell of the table as something that equals itself: NaN becomes None."""
    return None if isinstance(value, float) and np.isnan(value) else value


def _cell(
    table: Table, losses: np.ndarray, rows: np.ndarray, label: str, scale: Scale
) -> Cell:
    knob = knob_of(table, rows)
    fields = [
        name
        for name in table
        if name.startswith(_SETTINGS)
        and (name == knob.field or len({_value(v) for v in table[name][rows]}) > 1)
    ]
    seeds = tuple(sorted({int(s) for s in table["seed"][rows]}))
    grid: dict[tuple, dict[int, int]] = {}
    for row in rows:
        key = tuple(_value(table[name][row]) for name in fields)
        grid.setdefault(key, {})[int(table["seed"][row])] = int(row)
    settings = tuple(
        _setting(
            table, losses, dict(zip(fields, key, strict=True)), by_seed, seeds, knob
        )
        for key, by_seed in grid.items()
    )
    order = lambda s: (np.isnan(s.learning_rate), s.learning_rate, str(s.values))  # noqa: E731
    settings = tuple(sorted(settings, key=order))
    searched = searched_in(table, rows)
    best, status = tune(settings, knob, searched)
    compute = table["compute"][rows]
    compute = compute[np.isfinite(compute)]
    return Cell(
        label=label,
        scale=scale,
        seeds=seeds,
        settings=settings,
        best=best,
        status=status,
        compute=float(np.mean(compute)) if len(compute) else float("nan"),
        knob=knob,
        searched=searched,
    )


def _setting(
    table: Table,
    losses: np.ndarray,
    values: dict[str, Any],
    by_seed: dict[int, int],
    seeds: tuple[int, ...],
    knob: Knob,
) -> Setting:
    rows = [by_seed.get(seed) for seed in seeds]
    found = [float("nan") if r is None else float(losses[r]) for r in rows]
    statuses = ["missing" if r is None else str(table["status"][r]) for r in rows]
    for i, status in enumerate(statuses):
        if status == "finished" and not np.isfinite(found[i]):
            statuses[i] = "diverged"
        elif status != "finished":
            found[i] = float("nan")
    rate = values.get(knob.field)
    return Setting(
        values=values,
        learning_rate=float(rate) if isinstance(rate, int | float) else float("nan"),
        losses=np.array(found),
        statuses=tuple(statuses),
        trials=tuple(None if r is None else str(table["id"][r]) for r in rows),
    )
