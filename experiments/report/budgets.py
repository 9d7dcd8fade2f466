"""IsoFLOP curves: the best size of each budget, and how it grows with compute."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from gnomon.experiments.report.analysis import Analysis
from gnomon.scaling.approaches import Frontier, isoflop
from gnomon.scaling.comparison.scale import related


class Sizes(NamedTuple):
    """Tuned losses of one optimizer by size, and the best size of each budget.

    Attributes:
      params: ``[n]`` parameters.
      compute: ``[n]`` FLOPs of training.
      loss: ``[n]`` tuned losses.
      frontier: The vertices of the parabolas, and their law.
    """

    params: np.ndarray
    compute: np.ndarray
    loss: np.ndarray
    frontier: Frontier

    @property
    def budgets(self) -> list[np.ndarray]:
        """Rows of each budget, smallest first; alike are those within 5 %."""
        order = np.argsort(self.compute, kind="stable")
        jumps = np.diff(np.log(self.compute[order])) > np.log(1.05)
        return np.split(order, np.flatnonzero(jumps) + 1)

    @property
    def exponent(self) -> tuple[float, float, float]:
        """Of the best size in compute, with its 95 % interval."""
        law = self.frontier.law
        with np.errstate(over="ignore"):  # of a coefficient that few vertices tell
            return (law.compute, *law.interval("compute"))


def sizes_of(analysis: Analysis) -> dict[str, Sizes]:
    """The IsoFLOP curves of the optimizers that have three budgets of three sizes.

    Args:
      analysis: the numbers of the report.

    Returns:
      By label; none where the models are no sizes of one architecture.
    """
    found: dict[str, Sizes] = {}
    for label in analysis.labels:
        cells = [
            cell
            for cell in analysis.cells
            if cell.label == label and cell.tuned is not None
        ]
        if not cells or not related(cell.scale for cell in cells):
            continue
        if len({cell.scale.data for cell in cells}) > 1:
            continue
        columns = {
            "params": np.array([cell.scale.parameters for cell in cells]),
            "compute": np.array([cell.compute for cell in cells]),
            "loss": np.array([cell.lowest[1] for cell in cells]),
        }
        try:
            found[label] = Sizes(**columns, frontier=isoflop(**columns))
        except ValueError:
            continue
    return found


def inside(sizes: Sizes) -> np.ndarray:
    """For each vertex of the frontier, whether sizes were run on both sides of it."""
    least = {
        round(float(np.log(sizes.compute[rows]).mean()), 6): sizes.params[rows]
        for rows in sizes.budgets
    }
    return np.array(
        [
            (own := least[round(float(np.log(budget)), 6)]).min() <= best <= own.max()
            for budget, best in zip(
                sizes.frontier.compute, sizes.frontier.params, strict=True
            )
        ]
    )


def sentence(found: Mapping[str, Sizes]) -> str:
    """How the best size grows with compute, for each optimizer."""
    parts = []
    for label, sizes in found.items():
        value, low, high = sizes.exponent
        said = f"{label} as compute to the {value:.2f} [{low:.2f}, {high:.2f}]"
        if high - low >= 1:  # a power of the law lies between 0 and 1
            said = f"{label} by a power that is not determined"
        outside = int((~inside(sizes)).sum())
        if outside:
            said += f" ({outside} of {len(sizes.frontier.params)} vertices outside"
            said += " the sizes that were run)"
        parts.append(said)
    return f"The best size grows, by parabolas: {'; '.join(parts)}."


def rows(found: Mapping[str, Sizes]) -> Sequence[Sequence[str]]:
    """Best sizes by budget: a heading, and a row for each optimizer and budget."""
    table = [["optimizer", "budget (FLOP)", "best size", "tokens a parameter", "loss"]]
    for label, sizes in found.items():
        at = sizes.frontier
        within = inside(sizes)
        for c, n, loss, held in zip(
            at.compute, at.params, at.loss, within, strict=True
        ):
            ratio = c / (6 * n**2)
            size = f"{n:,.0f}" + ("" if held else " (outside the sizes run)")
            table.append([label, f"{c:.3g}", size, f"{ratio:.3g}", f"{loss:.4f}"])
    return table
