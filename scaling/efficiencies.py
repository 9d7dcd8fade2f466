r"""Which optimizer is better by how much, at each size and length.

.. math::
   L_k(N, D) = E + \frac{A}{(\epsilon_k N)^{\alpha}}
   + \frac{B}{(\delta_k D)^{\beta}}

Optimizer k makes of N parameters what :math:`\epsilon_k N` would be to the baseline,
and of D tokens :math:`\delta_k D`; floor and exponents are shared, and on request an
optimizer has exponents of its own. An absolute law misses a larger run by more than
optimizers differ, so this one is fitted to differences in the first place: all runs of
one size and length have an effect in common (`gnomon.scaling.jointly`), and so have
runs of one seed (`gnomon.scaling.paired`).

Intervals of gaps and speedups hold three errors: of the law's numbers; of the law, that
is how far cells lie from it, less what the scatter of seeds explains (all of it
without seeds, since then the two cannot be told apart); and beyond the largest runs the
one that was seen when the smaller cells foretold the largest (`Efficiencies.holdout`),
where that is more. Tests count how often they hold.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from gnomon.scaling.check import draws as checked_draws
from gnomon.scaling.differences import Efficiencies
from gnomon.scaling.fit import DRAWS
from gnomon.scaling.paired import pair


def fit_efficiencies(
    *,
    label: Any,
    params: Any,
    tokens: Any,
    loss: Any,
    baseline: str,
    seed: Any = None,
    own: Sequence[str] = (),
    searches: Mapping[str, int] | None = None,
    draws: int = DRAWS,
    random: int = 0,
) -> Efficiencies:
    r"""Fits efficiencies of optimizers to paired differences.

    Args:
      label: ``[n]`` names of optimizers.
      params: ``[n]`` parameters of each run's model.
      tokens: ``[n]`` tokens (or examples) each was trained on.
      loss: ``[n]`` final losses of tuned runs, in nats: one a label, cell and seed.
      baseline: the optimizer that the others are compared with.
      seed: ``[n]`` seeds. Runs of one size and length with equal seeds are paired. None
        for runs that share none.
      own: labels that have exponents of their own, instead of the shared.
      searches: by label, baseline included, of how many runs a cell each loss is the
        best. Intervals then cover what unequal searches bias at most
        (`gnomon.scaling.selection`).
      draws: behind the intervals, at least 20.
      random: seed of the draws.

    Returns:
      The fit: ask it for `gap`, `speedup`, `efficiency`, `exponents` and `holdout`.

    Raises:
      ValueError: A column is unfit; the baseline has no run; an optimizer shares fewer
        than three cells with it; or `own` or `searches` name no or not all labels.

    Example:
      An optimizer that makes 1.3 of each token.

      >>> import numpy as np
      >>> N, D = np.meshgrid(np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 3e10, 4))
      >>> N, D = np.tile(N.ravel(), 2), np.tile(D.ravel(), 2)
      >>> label = ["AdamW"] * 16 + ["Muon"] * 16
      >>> worth = np.where(np.array(label) == "Muon", 1.3, 1.0)
      >>> noise = 0.001 * np.random.default_rng(0).standard_normal(32)
      >>> law = fit_efficiencies(
      ...     label=label, params=N, tokens=D, baseline="AdamW",
      ...     loss=1.8 + 480 / N**0.35 + 2100 / (worth * D) ** 0.37 + noise)
      >>> print("{:.2f} [{:.2f}, {:.2f}]".format(*law.efficiency("Muon").tokens))
      1.30 [1.30, 1.31]
      >>> gap = law.gap("Muon", params=4e9, tokens=8e10)
      >>> print("{:.4f} [{:.4f}, {:.4f}]".format(*gap))
      -0.0181 [-0.0200, -0.0162]

    References:
      Hoffmann, J. et al. (2022). Training Compute-Optimal Large Language Models.
      Wen, K. et al. (2025). Fantastic Pretraining Optimizers and Where to Find Them.
      Harville (1977), as in `gnomon.scaling.jointly`.
    """
    runs = pair(
        label=label,
        params=params,
        tokens=tokens,
        loss=loss,
        baseline=baseline,
        seed=seed,
    )
    for name in own:
        if name not in runs.labels[1:]:
            raise ValueError(f"own: {name!r} is none of {', '.join(runs.labels[1:])}")
    searches = dict(searches or {})
    if searches and (missing := [name for name in runs.labels if name not in searches]):
        raise ValueError(f"searches: gives no number for {', '.join(missing)}")
    if not checked_draws(draws):
        raise ValueError("draws=0: intervals of differences need draws, mostly 400")
    return Efficiencies(runs, tuple(own), searches, draws, random)
