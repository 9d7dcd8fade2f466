r"""Optimal learning rate, batch size and weight decay as laws of scale.

A sweep gives an optimum for each scale (`optima`); the optima follow power laws in
parameters and tokens, which `fit_power` fits. For AdamW the law of weight decay goes
through the timescale over which weights forget,

.. math:: \tau = \frac{B}{\eta \lambda D}

as a share of the run, B and D in tokens: its optimum is a power law in tokens a
parameter, so that :math:`\lambda` follows for any batch size and learning rate.

References:
  Li, H. et al. (2025). Predictable Scale: Part I, Step Law. Optimal rate a power of
  parameters and tokens, optimal batch of tokens alone.
  Wang, X. and Aitchison, L. (2024). How to set AdamW's weight decay as you scale model
  and dataset size.
  Bergsma, S. et al. (2025). Power Lines: Scaling Laws for Weight Decay and Batch Size
  in LLM Pre-training.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from gnomon.scaling.check import checked, positive
from gnomon.scaling.compute import fit_power
from gnomon.scaling.fit import DRAWS, Estimate, Fit
from gnomon.scaling.tables import select


def optima(
    runs: Mapping[str, Any], setting: str, *, within: tuple[str, ...]
) -> dict[str, np.ndarray]:
    r"""The best setting at each scale, between the values that were run.

    A parabola in the setting's logarithm goes through the mean losses of the best
    value and its two neighbors; its vertex is the optimum. Scales whose best value
    is the lowest or highest one that was run are left out: their optimum is unknown.

    Args:
      runs: A run table with ``loss``.
      setting: the column to optimize, such as ``learning_rate``.
      within: columns that together tell the scale, such as ``("params", "tokens")``.

    Returns:
      A table of one row a scale: `within`, the setting, and its ``loss``.

    Raises:
      ValueError: A column is missing or bad, or no scale has its optimum inside.

    Example:
      >>> rate = np.array([1e-3, 2e-3, 4e-3])
      >>> loss = 2 + 0.1 * np.log(rate / 2.5e-3) ** 2
      >>> runs = {"params": [1e6] * 3, "learning_rate": rate, "loss": loss}
      >>> best = optima(runs, "learning_rate", within=("params",))
      >>> print(best["learning_rate"].round(6), best["loss"].round(6))
      [0.0025] [2.]
    """
    columns = checked(0, **select(runs, *within, setting, "loss"))
    keys = np.stack([columns[name] for name in within], axis=1)
    rows = []
    for key in np.unique(keys, axis=0):
        here = (keys == key).all(axis=1)
        values, group = np.unique(columns[setting][here], return_inverse=True)
        loss = np.bincount(group.reshape(-1), columns["loss"][here]) / np.bincount(
            group.reshape(-1)
        )
        best = int(np.argmin(loss))
        if not 0 < best < len(values) - 1:
            continue
        x, y = np.log(values[best - 1 : best + 2]), loss[best - 1 : best + 2]
        curve = np.polyfit(x - x[1], y, 2)
        shift = -curve[1] / (2 * curve[0]) if curve[0] > 0 else 0.0
        rows.append([*key, np.exp(x[1] + shift), np.polyval(curve, shift)])
    if not rows:
        raise ValueError(
            f"{setting}: at no scale is the best value between two others; widen its"
            " grid"
        )
    return dict(zip([*within, setting, "loss"], np.array(rows).T, strict=True))


def adamw_timescale(
    *, batch: Any, learning_rate: Any, weight_decay: Any, tokens: Any
) -> Any:
    r"""AdamW's timescale :math:`B / (\eta \lambda D)`, as a share of the run.

    Args:
      batch: B, tokens a step.
      learning_rate: :math:`\eta`, the peak.
      weight_decay: :math:`\lambda`, of decay multiplied by the learning rate.
      tokens: D, tokens of the whole run.

    Example:
      >>> print(round(adamw_timescale(
      ...     batch=1e5, learning_rate=1e-3, weight_decay=0.1, tokens=1e10), 6))
      0.1
    """
    return batch / (learning_rate * weight_decay * tokens)


def fit_timescale(
    *,
    params: Any,
    tokens: Any,
    batch: Any,
    learning_rate: Any,
    weight_decay: Any,
    bootstrap: int = DRAWS,
    delta: float = 1e-3,
    seed: int = 0,
) -> Fit:
    """Fits the optimal timescale as a power of tokens a parameter.

    Args:
      params: ``[n]`` parameters, one row a scale.
      tokens: ``[n]`` tokens of the run.
      batch: ``[n]`` tokens a step.
      learning_rate: ``[n]`` peak learning rates.
      weight_decay: ``[n]`` optimal weight decays, from `optima`.
      bootstrap: draws behind the intervals; 0 takes the covariance.
      delta: of Huber's loss.
      seed: of the bootstrap.

    Returns:
      A fit of ``timescale`` in ``ratio``, with attributes ``coefficient`` and
      ``ratio`` (its exponent). `predict_weight_decay` reads it.

    Raises:
      ValueError: A column is unfit, or there are fewer than three scales.

    Example:
      >>> N, D = np.array([1e7, 1e7, 1e8, 1e8]), np.array([2e8, 2e9, 2e9, 8e10])
      >>> decay = 1e5 / (1e-3 * D * 1.1 * (D / N) ** -0.5)
      >>> law = fit_timescale(params=N, tokens=D, batch=[1e5] * 4,
      ...     learning_rate=[1e-3] * 4, weight_decay=decay)
      >>> print(round(law.coefficient, 6), round(law.ratio, 6))
      1.1 -0.5
      >>> print(predict_weight_decay(law, params=1e9, tokens=2e10, batch=2e5,
      ...     learning_rate=1e-3).value.round(5))
      0.04066
    """
    columns = checked(
        2,
        params=params,
        tokens=tokens,
        batch=batch,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
    )
    ratio = columns["tokens"] / columns.pop("params")
    return fit_power(
        "timescale",
        timescale=adamw_timescale(**columns),
        ratio=ratio,
        bootstrap=bootstrap,
        delta=delta,
        seed=seed,
    )


def predict_weight_decay(
    law: Fit,
    *,
    params: Any,
    tokens: Any,
    batch: Any,
    learning_rate: Any,
    level: float = 0.95,
) -> Estimate:
    """The weight decay that gives a run its optimal timescale.

    Args:
      law: from `fit_timescale`.
      params: parameters of the model to be trained.
      tokens: tokens of its run.
      batch: tokens a step.
      learning_rate: its peak learning rate.
      level: of the interval.

    Returns:
      Weight decay with an interval of the law.

    Raises:
      ValueError: A number is not positive and finite.
    """
    given = dict(params=params, tokens=tokens, batch=batch, learning_rate=learning_rate)
    params, tokens, batch, learning_rate = (positive(*one) for one in given.items())
    scale = law.predict_interval(level, ratio=tokens / params)
    decay = [batch / (learning_rate * tokens * end) for end in scale]
    return Estimate(decay[0], decay[2], decay[1])
