"""Runs paired by cell and seed, one loss for each optimizer in each cell.

A cell is a size of the model and a length of training. Losses of one cell share where
an absolute law errs and, where seeds are the same, the luck of a seed; only their
differences rank optimizers.
"""

from typing import Any, NamedTuple

import numpy as np

from gnomon.scaling.check import checked

LEAST = 3  # cells that an optimizer must share with the baseline


class Paired(NamedTuple):
    """Losses of optimizers in cells, the luck of seeds taken off.

    Attributes:
      labels: Names of the optimizers, the baseline first.
      params: ``[cells]`` parameters of the model.
      tokens: ``[cells]`` tokens or examples seen.
      label: ``[n]`` numbers of optimizers.
      cell: ``[n]`` numbers of cells.
      loss: ``[n]`` mean losses.
      runs: ``[n]`` how many runs are behind each.
      noise: Standard deviation of one run's loss around its optimizer's mean and its
        seed's effect; NaN where no cell repeats an optimizer.
    """

    labels: tuple[str, ...]
    params: np.ndarray
    tokens: np.ndarray
    label: np.ndarray
    cell: np.ndarray
    loss: np.ndarray
    runs: np.ndarray
    noise: float

    def keep(self, cells: np.ndarray) -> "Paired":
        """The same with some of the cells alone; all labels stay."""
        rows = np.isin(self.cell, cells)
        kept, cell = np.unique(self.cell[rows], return_inverse=True)
        return self._replace(
            params=self.params[kept],
            tokens=self.tokens[kept],
            label=self.label[rows],
            cell=cell,
            loss=self.loss[rows],
            runs=self.runs[rows],
        )

    def table(self) -> np.ndarray:
        """``[labels, cells]`` losses, NaN where an optimizer did not run."""
        found = np.full((len(self.labels), len(self.params)), np.nan)
        found[self.label, self.cell] = self.loss
        return found

    def gaps(self) -> np.ndarray:
        """``[labels, cells]`` losses less the baseline's of the same cell."""
        found = self.table()
        return found - found[0]


def pair(
    *,
    label: Any,
    params: Any,
    tokens: Any,
    loss: Any,
    baseline: str,
    seed: Any = None,
) -> Paired:
    """Pairs runs by cell and, where it is given, by seed.

    Args:
      label: ``[n]`` names of optimizers.
      params: ``[n]`` parameters of each run's model.
      tokens: ``[n]`` tokens (or examples) each was trained on.
      loss: ``[n]`` final losses of tuned runs.
      baseline: the optimizer that the others are compared with.
      seed: ``[n]`` seeds; runs of a cell with equal seeds share their luck. None for
        runs that share none.

    Returns:
      The paired losses.

    Raises:
      ValueError: A column is unfit, the baseline has no run, or an optimizer shares
        fewer than three cells with it.

    Example:
      Muon lacks a seed that was an unlucky one; its gap is that of the other.

      >>> found = pair(
      ...     label=["AdamW", "AdamW", "Muon"] * 3, params=[1e6] * 9,
      ...     tokens=[1e7] * 3 + [2e7] * 3 + [4e7] * 3, seed=[0, 1, 0] * 3,
      ...     loss=[3.0, 3.4, 2.9, 2.8, 3.2, 2.7, 2.6, 3.0, 2.5], baseline="AdamW")
      >>> print(found.gaps()[1].round(6))
      [-0.1 -0.1 -0.1]
    """
    names = np.asarray([str(name) for name in np.asarray(label, dtype=object)])
    columns = checked(1, params=params, tokens=tokens, loss=loss)
    if len(names) != len(columns["loss"]):
        raise ValueError(
            f"label: {len(names)} names for {len(columns['loss'])} runs; give one each"
        )
    if baseline not in names:
        known = ", ".join(dict.fromkeys(names))
        raise ValueError(
            f"baseline={baseline!r}: no run has this label; there: {known}"
        )
    seeds = np.arange(len(names)) if seed is None else np.asarray(seed)
    if seeds.shape != names.shape:
        raise ValueError(f"seed: has shape {seeds.shape}; give one seed a run, [runs]")
    labels = (baseline, *(n for n in dict.fromkeys(names.tolist()) if n != baseline))
    number = np.array([labels.index(name) for name in names])
    places = np.stack([columns["params"], columns["tokens"]], axis=1)
    cells, cell = np.unique(places, axis=0, return_inverse=True)
    cell = cell.reshape(-1)
    rows, squares, freedom = [], 0.0, 0
    for c in range(len(cells)):
        here = np.flatnonzero(cell == c)
        mine, loss_of, rest, free = _means(
            number[here], seeds[here], columns["loss"][here], seed is not None
        )
        squares, freedom = squares + rest, freedom + free
        counts = [np.sum(number[here] == k) for k in mine]
        rows += list(zip(mine, [c] * len(mine), loss_of, counts, strict=True))
    which, where, means, behind = (np.array(part) for part in zip(*rows, strict=True))
    found = Paired(
        labels=labels,
        params=cells[:, 0],
        tokens=cells[:, 1],
        label=which,
        cell=where,
        loss=means,
        runs=behind,
        noise=float(np.sqrt(squares / freedom)) if freedom else float("nan"),
    )
    for name, gaps in zip(labels[1:], found.gaps()[1:], strict=True):
        shared = int(np.isfinite(gaps).sum())
        if shared < LEAST:
            raise ValueError(
                f"label: {name} shares {shared} cells of size and length with"
                f" {baseline}; {LEAST} are needed, or leave it out"
            )
    return found


def _means(number, seeds, loss, paired):
    """A cell's means by optimizer, with the effects of seeds taken off by regression.

    Also the residual sum of squares and its degrees of freedom.
    """
    mine, row = np.unique(number, return_inverse=True)
    design = np.eye(len(mine))[row]
    if paired:
        column = np.unique(seeds, return_inverse=True)[1]
        effects = np.eye(column.max() + 1)[column]
        # Effects that sum to zero: means are those over all seeds of the cell.
        design = np.concatenate([design, effects[:, 1:] - effects[:, :1]], axis=1)
    found, _, rank, _ = np.linalg.lstsq(design, loss, rcond=None)
    rest = loss - design @ found
    return mine, found[: len(mine)], float(rest @ rest), len(loss) - int(rank)
