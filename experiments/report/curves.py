"""Loss curves of the tuned runs."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from gnomon.scaling.comparison.cell import Cell
from gnomon.scaling.comparison.scale import Scale

ENOUGH = 4  # evaluations that make a curve


class Recorded(Protocol):
    """A run that recorded metrics."""

    def metrics(self) -> dict[str, np.ndarray]:
        """``step`` and a float64 array a name, NaN where a step lacks it."""
        ...


class Curve(NamedTuple):
    """A loss against steps.

    Attributes:
      name: Which metric.
      step: ``[points]``.
      mean: ``[points]``, over seeds.
      low: ``[points]``, the smallest of the seeds.
      high: ``[points]``, the largest of the seeds.
    """

    name: str
    step: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def best_curves(
    cells: Iterable[Cell], runs: Mapping[str, Recorded], metric: str, name: str = ""
) -> dict[tuple[str, Scale], Curve | None]:
    """The curve of every cell's best setting, by optimizer and scale.

    Args:
      cells: of an analysis.
      runs: by id.
      metric: as in `loss_curve`.
      name: as in `loss_curve`.
    """
    return {
        (cell.label, cell.scale): loss_curve(
            [runs[trial] for trial in cell.optimum.trials if trial], metric, name
        )
        for cell in cells
        if cell.optimum is not None
    }


def left_out(curves: Mapping[tuple[str, Scale], Curve | None]) -> list[str]:
    """Names the curves that no picture shows, and why."""
    return [
        f"{label} at {scale.name} (fewer than {ENOUGH} values recorded)"
        for (label, scale), curve in curves.items()
        if curve is None
    ]


def loss_curve(runs: Sequence[Recorded], metric: str, name: str = "") -> Curve | None:
    """The curve of one setting over its seeds.

    Args:
      runs: the setting's runs, a seed each.
      metric: the validation metric, taken where every run has enough evaluations.
        Otherwise the training loss stands in, smoothed over a tenth of the run.
      name: which metric to take, when the choice is made already.

    Returns:
      The curve, or None where the runs recorded too little.
    """
    metrics = [run.metrics() for run in runs]
    for key in [name] if name else [metric, "train_loss"]:
        found = _common(metrics, key)
        if found is None:
            continue
        step, values = found
        if key == "train_loss":
            values = np.stack([_smooth(row) for row in values])
        return Curve(key, step, values.mean(0), values.min(0), values.max(0))
    return None


def _common(metrics: Sequence[dict], key: str) -> tuple[np.ndarray, np.ndarray] | None:
    """Values of one metric at the steps where all runs have it."""
    series = []
    for run in metrics:
        values = run.get(key, np.full(len(run["step"]), np.nan))
        kept = np.isfinite(values)
        series.append(dict(zip(run["step"][kept], values[kept], strict=True)))
    if not series:
        return None
    steps = sorted(set.intersection(*(set(one) for one in series)))
    if len(steps) < ENOUGH:
        return None
    return np.array(steps), np.array([[one[s] for s in steps] for one in series])


def _smooth(values: np.ndarray) -> np.ndarray:
    """A centered moving average, narrower toward the ends."""
    half = len(values) // 20
    sums = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    reach = np.minimum(half, np.minimum(index, len(values) - 1 - index))
    return (sums[index + reach + 1] - sums[index - reach]) / (2 * reach + 1)
