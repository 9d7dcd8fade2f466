"""Tuned settings: which learning rate each optimizer wants at each scale.

What is said of learning rates holds for whatever an optimizer has in its place
(`knob`).

A *scale* is what the trials of a comparison share: model, data, batch and number of
steps. A *cell* is one optimizer at one scale: a grid of settings, each run with
every seed. The tuned setting is the one with the smallest mean final loss over the
seeds, among the settings that no seed made diverge. It is only called tuned when the
grid shows that a larger and a smaller learning rate are both worse; where a sampler
chose the settings in an interval, when the best lies away from its ends. On request the
optimum is read between the points of the grid (`interpolation`).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from gnomon.scaling.comparison.interpolation import lowest, neighbors
from gnomon.scaling.comparison.knob import LEARNING_RATE, Knob
from gnomon.scaling.comparison.scale import Scale


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
      status: ``tuned``, or ``given`` where it is not told how; or why not: ``edge``
        (the optimum lies on the first or last learning rate), ``single`` (one learning
        rate only), ``incomplete`` (trials of the grid are not done), ``diverged`` (no
        setting survived all seeds).
      compute: FLOPs of one training run; NaN when none finished.
      interpolate: Whether losses and rates are read between the points of the grid.
      knob: What the grid tunes.
      searched: Ends of the intervals that a sampler chose the settings in, by field;
        empty for a grid.
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
    searched: Mapping[str, tuple[float, float]] = dataclasses.field(
        default_factory=dict
    )

    @property
    def tuned(self) -> Setting | None:
        """The tuned setting, or None where the cell is not tuned."""
        return self.optimum if self.status in ("tuned", "given") else None

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


def why(cell: Cell) -> str:
    """Why a cell is not tuned, in words.

    The words follow the optimizer's name.
    """
    points = f"of {len(cell.settings)} points searched" if cell.searched else ""
    return {
        "tuned": f"is tuned: best {points}" if points else "is tuned",
        "given": "is as given",
        "edge": f"is untuned: best {points} at an end of the interval"
        if points
        else "is untuned: optimum at grid edge",
        "single": f"is untuned: one {cell.knob.words} only",
        "incomplete": "is incomplete: trials of its grid are not done",
        "diverged": "diverged at every setting",
    }[cell.status]


def tune(
    settings: Sequence[Setting],
    knob: Knob,
    searched: Mapping[str, tuple[float, float]] = MappingProxyType({}),
) -> tuple[int | None, str]:
    """The index of the best setting of a grid, and its `Cell.status`.

    Args:
      settings: the grid.
      knob: what it tunes.
      searched: as of `Cell`.
    """
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
    found = settings[best].learning_rate
    if ends := searched.get(knob.field):
        at_edge = knob.at_end(found, ends)
    else:
        at_edge = found in knob.open_ends(sorted(rates))
    return best, "edge" if at_edge else "tuned"
