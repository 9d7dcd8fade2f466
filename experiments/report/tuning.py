"""Tuned settings: which learning rate each optimizer wants at each scale.

What is said of learning rates holds for whatever an optimizer has in its place
(`knob`).

A *scale* is what the trials of a comparison share: model, data, batch and number of
steps. A *cell* is one optimizer at one scale: a grid of settings, each run with
every seed. The tuned setting is the one with the smallest mean final loss over the
seeds, among the settings that no seed made diverge. It is only called tuned when the
grid shows that a larger and a smaller learning rate are both worse. On request the
optimum is read between the points of the grid (`interpolation`).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gnomon.experiments.config.fields import OBSERVING, OPERATIONAL, PLACEMENT
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.records.direction import why_not
from gnomon.experiments.report.interpolation import lowest, neighbors
from gnomon.experiments.report.knob import LEARNING_RATE, RATE, Knob, knob_of

__all__ = ["RATE", "Cell", "Knob", "Scale", "Setting", "Table", "cells", "why"]
Table = Mapping[str, np.ndarray]
Key = tuple[tuple[str, Any], ...]

# Fields that tell trials of one scale apart, or that change no trained weight.
_WITHIN = ("label", "seed", "static", "id", "status", "optimizer.", "schedule.")
_SHOWN = (*OPERATIONAL, *OBSERVING, *PLACEMENT, "evaluate")
_RESULTS = ("final.", "parameters", "compute", "units", "seconds")
# What a person calls a scale by.
_FIRST = ("model.name", "data.name", "model.width", "model.depth", "model.")
_LAST = ("batch", "steps")


@dataclasses.dataclass(frozen=True)
class Scale:
    """What the trials of one comparison share.

    Attributes:
      name: The fields that tell it from the others, ``"width 64, 400 steps"``.
      model: Everything but the number of steps; equal for lengths of one model.
      data: The fields of data and task; losses compare only where these agree.
      steps: Length of training.
      parameters: Size of the model, NaN when no trial has finished.
    """

    name: str
    model: Key
    data: Key
    steps: float
    # Known once a trial is done, and NaN never equals NaN: not part of identity.
    parameters: float = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True)
class Setting:
    """One point of a grid.

    Attributes:
      values: The hyperparameters that vary within the cell.
      learning_rate: The value of what is tuned (the cell's ``knob``), by default the
        learning rate; NaN where nothing is.
      losses: Final loss of each of the cell's seeds, NaN where there is none.
      statuses: For each seed ``finished``, ``diverged``, ``unfinished``, ``missing``.
      trials: For each seed the trial's id, or None.
    """

    values: Mapping[str, Any]
    learning_rate: float
    losses: np.ndarray
    statuses: tuple[str, ...]
    trials: tuple[str | None, ...]

    @functools.cached_property
    def mean(self) -> float:
        """Mean loss over the seeds; NaN unless every seed finished."""
        return float(np.mean(self.losses))

    @property
    def diverged(self) -> bool:
        """Whether any seed diverged."""
        return "diverged" in self.statuses


@dataclasses.dataclass(frozen=True)
class Cell:
    """One optimizer at one scale.

    Attributes:
      label: The optimizer.
      scale: Where it ran.
      seeds: The seeds of the grid.
      settings: The grid, by rising learning rate.
      best: Index of the setting with the smallest mean loss, or None.
      status: ``tuned``; or why not: ``edge`` (the optimum lies on the first or last
        learning rate), ``single`` (one learning rate only), ``incomplete`` (trials
        of the grid are not done), ``diverged`` (no setting survived all seeds).
      compute: FLOPs of one training run; NaN when none finished.
      interpolate: Whether losses and rates are read between the points of the grid.
      knob: What the grid tunes.
    """

    label: str
    scale: Scale
    seeds: tuple[int, ...]
    settings: tuple[Setting, ...]
    best: int | None
    status: str
    compute: float
    interpolate: bool = False
    knob: Knob = LEARNING_RATE

    @property
    def tuned(self) -> Setting | None:
        """The tuned setting, or None where the cell is not tuned."""
        return self.optimum if self.status == "tuned" else None

    @property
    def optimum(self) -> Setting | None:
        """The best setting of the grid, tuned or not."""
        return None if self.best is None else self.settings[self.best]

    def means(self, weights: np.ndarray) -> np.ndarray:
        """Smallest weighted mean loss, the setting chosen anew for each weighting.

        Args:
          weights: ``[draws, seeds]``, rows that sum to one.

        Returns:
          ``[draws]`` losses.
        """
        return self._lowest(weights)[1]

    @property
    def lowest(self) -> tuple[float, float]:
        """The tuned learning rate and loss, NaN where no setting survived.

        Those of `optimum`, or between the grid's points with ``interpolate``.
        """
        if self.best is None:
            return float("nan"), float("nan")
        n = len(self.seeds)
        rate, loss = self._lowest(np.full((1, n), 1 / n))
        return self.knob.value(rate[0]), float(loss[0])

    def _lowest(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        log_rates, losses, beside = self._curve
        drawn = weights @ losses
        if self.interpolate:
            return lowest(log_rates, drawn, beside)
        best = np.argmin(drawn, axis=1)
        return log_rates[best], drawn[np.arange(len(drawn)), best]

    @functools.cached_property
    def _curve(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Coordinates, losses ``[seeds, settings]``, neighbors of usable settings.

        Usable is what every seed finished.
        """
        usable = [s for s in self.settings if np.isfinite(s.mean)]
        rates = np.array([s.learning_rate for s in usable])
        others = [
            tuple(
                sorted((k, str(v)) for k, v in s.values.items() if k != self.knob.field)
            )
            for s in usable
        ]
        losses = np.array([s.losses for s in usable]).T
        at = self.knob.coordinate(rates)
        return at, losses, neighbors(at, others)


def cells(table: Table, metric: str, interpolate: bool = False) -> list[Cell]:
    """Groups a run table into cells and tunes each.

    Args:
      table: Columns as `gnomon.experiments.records.runs.table` gives them.
      metric: Which final metric, smaller is better, such as ``validation_loss``.
      interpolate: Read optima between the points of the grids.

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
    return [
        dataclasses.replace(
            _cell(table, losses, np.array(rows[label, scale]), str(label), scale),
            interpolate=interpolate,
        )
        for label, scale in sorted(rows, key=order)
    ]


def why(cell: Cell) -> str:
    """Why a cell is not tuned, in words.

    The words follow the optimizer's name.
    """
    return {
        "tuned": "is tuned",
        "edge": "is untuned: optimum at grid edge",
        "single": f"is untuned: one {cell.knob.words} only",
        "incomplete": "is incomplete: trials of its grid are not done",
        "diverged": "diverged at every setting",
    }[cell.status]


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
    shown = [f for f in ("model.width", "steps") if f in table]
    alone = ", ".join(_words(f, _value(table[f][0])) for f in shown)
    parameters: dict[Key, float] = {}
    for key, size in zip(keys, table["parameters"], strict=True):
        if np.isfinite(size):
            parameters[key] = float(size)
    return [
        Scale(
            name=", ".join(_words(f, v) for f, v in key if f in named) or alone,
            model=tuple(kv for kv in key if kv[0] != "steps"),
            data=tuple(kv for kv in key if kv[0].startswith(("data.", "task"))),
            steps=float(table["steps"][i]),
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
        if name.startswith(("optimizer.", "schedule."))
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
    best, status = _tune(settings, knob)
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


def _tune(settings: Sequence[Setting], knob: Knob) -> tuple[int | None, str]:
    means = np.array([setting.mean for setting in settings])
    best = int(np.nanargmin(means)) if np.isfinite(means).any() else None
    statuses = {status for setting in settings for status in setting.statuses}
    if statuses & {"unfinished", "missing"}:
        return best, "incomplete"
    if best is None:
        return None, "diverged"
    rates = {s.learning_rate for s in settings if not np.isnan(s.learning_rate)}
    if not rates:
        return best, "tuned"  # there is nothing to tune
    if len(rates) == 1:
        return best, "single"
    at_edge = settings[best].learning_rate in knob.open_ends(sorted(rates))
    return best, "edge" if at_edge else "tuned"
