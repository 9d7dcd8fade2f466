"""How well gaps between optimizers at smaller cells foretell those at the largest."""

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from gnomon.scaling.differences import Efficiencies

SAME = 0.8  # of the largest params times tokens: what counts as one budget


class GapHoldout(NamedTuple):
    """Gaps that were foretold and then measured, one row an optimizer and cell.

    Attributes:
      fit: The law of the smaller cells.
      label: ``[k]`` the optimizer.
      params: ``[k]`` of the cell that was held out.
      tokens: ``[k]`` of it.
      measured: ``[k]`` loss less the baseline's.
      predicted: ``[k]`` what the law said.
      low: ``[k]`` lower ends of the intervals, for runs with as many seeds.
      high: ``[k]`` upper ends.
      carried: ``[k]`` the optimizer's gap at the last cell that was kept.
    """

    fit: "Efficiencies"
    label: tuple[str, ...]
    params: np.ndarray
    tokens: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    low: np.ndarray
    high: np.ndarray
    carried: np.ndarray

    @property
    def error(self) -> float:
        """Mean size of the law's errors."""
        return float(np.mean(np.abs(self.predicted - self.measured)))

    @property
    def carried_error(self) -> float:
        """Mean size of the errors of carrying the last gap over."""
        return float(np.mean(np.abs(self.carried - self.measured)))

    @property
    def covered(self) -> float:
        """Share of measured gaps inside their intervals."""
        return float(
            np.mean((self.low <= self.measured) & (self.measured <= self.high))
        )


def held_out(fit: "Efficiencies", by: str, level: float) -> GapHoldout:
    """`Efficiencies.holdout`."""
    runs = fit.runs
    held = _held(by, runs.params, runs.tokens)
    gaps = runs.gaps()
    kept = np.flatnonzero(~held)
    thin = [
        name
        for name, mine in zip(runs.labels[1:], gaps[1:], strict=True)
        if np.isfinite(mine[kept]).sum() < 3
    ]
    if thin:
        raise ValueError(
            f"by={by!r}: without the largest cells fewer than three are left to"
            f" {', '.join(thin)} and {runs.labels[0]}"
        )
    smaller = dataclasses.replace(fit, runs=runs.keep(kept), calibrate=False)
    rows = []
    for k, name in enumerate(runs.labels[1:], start=1):
        for cell in np.flatnonzero(held & np.isfinite(gaps[k])):
            at = {"params": runs.params[cell], "tokens": runs.tokens[cell]}
            said = smaller.gap(name, **at, level=level, noise=True)
            near = kept[np.isfinite(gaps[k, kept])]
            last = near[_last(by, runs.params, runs.tokens, cell, near)]
            rows.append((name, *at.values(), gaps[k, cell], *said, gaps[k, last]))
    names, *columns = zip(*rows, strict=True)
    return GapHoldout(smaller, names, *(np.array(column, float) for column in columns))


def _held(by, params, tokens):
    """Which cells are the largest."""
    if by == "params":
        return params == params.max()
    if by == "tokens":
        return np.array(
            [
                t == tokens[params == n].max()
                for n, t in zip(params, tokens, strict=True)
            ]
        )
    if by == "compute":
        return params * tokens >= SAME * (params * tokens).max()
    raise ValueError(f'by={by!r}: must be "params", "tokens" or "compute"')


def _last(by, params, tokens, cell, near):
    """The kept cell whose gap one would carry over.

    Of a size that was held out, the next smaller size at about as many tokens a
    parameter; else about the same size, at its longest.
    """
    ratio = np.abs(np.log(tokens[near] / params[near] * params[cell] / tokens[cell]))
    size = np.abs(np.log(params[near] / params[cell]))
    keys = (ratio, size) if by == "params" else (-tokens[near], size)
    return np.lexsort(keys)[0]
