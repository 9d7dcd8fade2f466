"""From a run table to the numbers of a report; no files, no pictures."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.report.cells import Table, cells
from gnomon.experiments.report.source import SWEEP, Source
from gnomon.scaling.comparison.cell import Cell
from gnomon.scaling.comparison.multiple import holm
from gnomon.scaling.comparison.resampling import seed_weights
from gnomon.scaling.comparison.scale import Scale
from gnomon.scaling.comparison.speedup import Comparison, compare
from gnomon.scaling.comparison.summary import Summary, summarize


@dataclasses.dataclass(frozen=True)
class Analysis:
    """What a report says.

    Attributes:
      baseline: The optimizer the others are compared with.
      metric: The final metric that is compared; smaller is better.
      cells: Every optimizer at every scale, the baseline's first.
      comparisons: Every other optimizer against the baseline, a scale each.
      summaries: Every other optimizer over all scales.
      source: What is known of the runs besides.
    """

    baseline: str
    metric: str
    cells: Sequence[Cell]
    comparisons: Sequence[Comparison]
    summaries: Sequence[Summary]
    source: Source = SWEEP

    @property
    def labels(self) -> list[str]:
        """The optimizers, the baseline first."""
        return list(dict.fromkeys(cell.label for cell in self.cells))

    @property
    def scales(self) -> list[Scale]:
        """The scales, smallest first."""
        order = lambda s: (s.parameters, s.steps, s.name)  # noqa: E731
        return sorted({cell.scale for cell in self.cells}, key=order)

    def cell(self, label: str, scale: Scale) -> Cell | None:
        """One optimizer at one scale, if it ran there."""
        for cell in self.cells:
            if cell.label == label and cell.scale == scale:
                return cell
        return None


def analyze(
    table: Table,
    baseline: str = "",
    metric: str = "validation_loss",
    interpolate: bool = False,
    source: Source = SWEEP,
    power: bool = False,
) -> Analysis:
    """Tunes every optimizer at every scale and compares it with the baseline.

    Args:
      table: columns as `gnomon.experiments.records.runs.table` gives them.
      baseline: the label to compare with; "" takes the first in the table.
      metric: the final metric to compare; smaller is better.
      interpolate: read tuned losses between the points of the grids.
      source: what is known of the runs besides.
      power: read speedups off a power law through the baseline's lengths.

    Raises:
      UserError: No trial has the baseline's label, or none recorded the metric, or
        larger is better.
    """
    labels = [str(label) for label in dict.fromkeys(table["label"])]
    baseline = baseline or labels[0]
    if baseline not in labels:
        raise UserError(
            f"config.report.baseline={baseline!r}: no trial has this label; there"
            f" are: {', '.join(labels)}; report takes another as --baseline"
        )
    found = sorted(
        cells(table, metric, interpolate, source.given),
        key=lambda cell: cell.label != baseline,
    )
    base = [cell for cell in found if cell.label == baseline]
    weights = seed_weights([cell.seeds for cell in found])
    comparisons = [
        compare(cell, base, weights, power) for cell in found if cell.label != baseline
    ]
    others = list(dict.fromkeys(c.label for c in comparisons))
    summaries = [
        summarize(label, [c for c in comparisons if c.label == label])
        for label in others
    ]
    return Analysis(
        baseline=baseline,
        metric=metric,
        cells=found,
        comparisons=_adjusted(comparisons),
        summaries=_adjusted(summaries),
        source=source,
    )


def _adjusted(family: Sequence[Any]) -> list[Any]:
    """Comparisons, or summaries, with p-values that hold together."""
    adjusted = holm([one.p for one in family])
    return [
        dataclasses.replace(one, p=p) for one, p in zip(family, adjusted, strict=True)
    ]
