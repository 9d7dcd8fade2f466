r"""Compute-optimal sizes without a law of loss: envelope minima and IsoFLOP parabolas.

Both are here for comparison with `fit_chinchilla`, and both are biased even without
noise. A budget's losses against :math:`\log N` follow
:math:`E + A e^{-\alpha x} + B' e^{\beta x}`, which is no parabola: where
:math:`\alpha \ne \beta`, or where the sizes that were run do not lie evenly around the
optimum, the vertex is off, the more so the wider the sizes. An offset that is the
same at each budget shifts the law's constant; one that drifts with the budget enters
the exponent. Envelope minima can only be sizes that were run, so they are rounded to
the grid of sizes, and their losses err upward.

References:
  Hoffmann, J. et al. (2022). Training Compute-Optimal Large Language Models,
  approaches 1 and 2.
  arXiv:2603.22339 (2026), on the bias of IsoFLOP parabolas without noise.
"""

from typing import Any, NamedTuple

import numpy as np

from gnomon.scaling.check import checked
from gnomon.scaling.compute import fit_power
from gnomon.scaling.fit import Fit


class Frontier(NamedTuple):
    """Optimal sizes at some budgets, and the power law through them.

    Attributes:
      compute: ``[k]`` budgets.
      params: ``[k]`` sizes of least loss.
      loss: ``[k]`` their losses.
      law: ``params`` as a power of ``compute``; ``law.compute`` is the exponent.
    """

    compute: np.ndarray
    params: np.ndarray
    loss: np.ndarray
    law: Fit


def envelope(*, params: Any, compute: Any, loss: Any, bins: int = 12) -> Frontier:
    """Approach 1: in each bin of compute, the size of the least loss.

    Args:
      params: ``[n]`` parameters; rows are points along training curves.
      compute: ``[n]`` FLOPs spent up to there.
      loss: ``[n]`` losses there.
      bins: bins, evenly spaced in log compute.

    Returns:
      The minima and their law. See the module on its bias.

    Raises:
      ValueError: A column is unfit, or fewer than three bins hold rows.
    """
    if bins < 1:
        raise ValueError(f"bins={bins}: must be at least three")
    table = checked(
        2,
        distinct={"params": 2, "compute": 2},
        params=params,
        compute=compute,
        loss=loss,
    )
    log = np.log(table["compute"])
    edges = np.linspace(log.min(), log.max(), bins + 1)
    group = np.clip(np.searchsorted(edges, log, side="right") - 1, 0, bins - 1)
    rows = np.array(
        [
            members[np.argmin(table["loss"][members])]
            for members in (np.flatnonzero(group == g) for g in np.unique(group))
        ]
    )
    if len(rows) < 3:
        raise ValueError(f"bins={bins}: only {len(rows)} hold rows; three are needed")
    return _frontier(*(table[name][rows] for name in ("compute", "params", "loss")))


def isoflop(*, params: Any, compute: Any, loss: Any) -> Frontier:
    """Approach 2: at each budget, the vertex of a parabola in log parameters.

    Args:
      params: ``[n]`` parameters.
      compute: ``[n]`` budgets; runs within 5 % of each other share one.
      loss: ``[n]`` final losses.

    Returns:
      The vertices and their law. Budgets with fewer than three sizes, or whose
      parabola opens downward, are left out. See the module on its bias.

    Raises:
      ValueError: A column is unfit, or fewer than three budgets have a vertex.

    Example:
      >>> C = np.repeat(np.geomspace(1e18, 1e21, 4), 7)
      >>> N = np.sqrt(C / 120) * np.tile(np.geomspace(0.1, 10, 7), 4)
      >>> L = 1.8 + 480 / N**0.35 + 2100 / (C / 6 / N) ** 0.37
      >>> found = isoflop(params=N, compute=C, loss=L)
      >>> print(f"{found.law.compute:.4f}, in truth {0.37 / 0.72:.4f}")
      0.5143, in truth 0.5139
    """
    table = checked(
        2,
        distinct={"params": 2, "compute": 2},
        params=params,
        compute=compute,
        loss=loss,
    )
    order = np.argsort(table["compute"], kind="stable")
    jumps = np.diff(np.log(table["compute"][order])) > np.log(1.05)
    rows = []
    for members in np.split(order, np.flatnonzero(jumps) + 1):
        x = np.log(table["params"][members])
        if len(np.unique(x)) < 3:
            continue
        middle = x.mean()
        curve = np.polyfit(x - middle, table["loss"][members], 2)
        if curve[0] > 0:
            shift = -curve[1] / (2 * curve[0])
            budget = np.exp(np.log(table["compute"][members]).mean())
            rows.append([budget, np.exp(middle + shift), np.polyval(curve, shift)])
    if len(rows) < 3:
        raise ValueError(
            f"compute: {len(rows)} budgets have a parabola with a minimum; three are"
            " needed, each of three sizes or more"
        )
    return _frontier(*np.array(rows).T)


def _frontier(compute: np.ndarray, params: np.ndarray, loss: np.ndarray) -> Frontier:
    return Frontier(
        compute, params, loss, fit_power("params", params=params, compute=compute)
    )
