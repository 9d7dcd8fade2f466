r"""What to do to the other hyperparameters when the batch size changes.

Each rule is a closed form in the ratio :math:`\kappa = B' / B` of the new batch to the
one that was tuned, and takes numbers or NumPy arrays. They are starting points: the
linear and square-root rules follow from matching the noise of stochastic differential
equations and hold while :math:`B'` is well below the critical batch size
(`fit_critical_batch`); past it nothing is gained from a larger rate.

A rule keeps training the same as a function of data seen, not of steps.
"""

from typing import Any, NamedTuple

import numpy as np


def linear_rule(learning_rate: Any, *, batch: Any, new_batch: Any) -> Any:
    r"""The learning rate of SGD: :math:`\eta' = \kappa \eta`, momentum unchanged.

    Args:
      learning_rate: :math:`\eta`, tuned at `batch`.
      batch: B, in any unit.
      new_batch: B', in the same.

    Example:
      >>> linear_rule(0.1, batch=256, new_batch=1024)
      0.4

    References:
      Goyal, P. et al. (2017). Accurate, Large Minibatch SGD: Training ImageNet in 1
      Hour.
      Granziol, D. et al. (2022). Learning Rates as a Function of Batch Size: A Random
      Matrix Theory Approach to Neural Network Training.
    """
    return learning_rate * (new_batch / batch)


class AdamSettings(NamedTuple):
    """Hyperparameters of Adam that a change of the batch moves together.

    Attributes:
      learning_rate: The step size.
      b1: Decay of the first moment, a step.
      b2: Decay of the second moment, a step.
      eps: Added to the root of the second moment.
    """

    learning_rate: Any
    b1: Any
    b2: Any
    eps: Any


def square_root_rule(
    learning_rate: Any,
    b1: Any = 0.9,
    b2: Any = 0.999,
    eps: Any = 1e-8,
    *,
    batch: Any,
    new_batch: Any,
) -> AdamSettings:
    r"""All of Adam's hyperparameters at another batch size.

    .. math::
       \eta' = \sqrt\kappa\, \eta, \quad 1 - \beta_i' = \kappa (1 - \beta_i), \quad
       \epsilon' = \epsilon / \sqrt\kappa

    The rule is first order in :math:`\kappa (1 - \beta)`: a decay would turn negative
    for a batch :math:`1 / (1 - \beta)` times as large or more. `scaled_decay`
    agrees with it while that product is small and never leaves the unit interval.

    Args:
      learning_rate: :math:`\eta`, tuned at `batch`.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the root of the second moment.
      batch: B, in any unit.
      new_batch: B', in the same.

    Returns:
      The four at the new batch.

    Raises:
      ValueError: The rule asks for a negative decay.

    Example:
      >>> [float(f"{x:.4g}") for x in square_root_rule(
      ...     1e-3, 0.9, 0.99, 1e-8, batch=256, new_batch=1024)]
      [0.002, 0.6, 0.96, 5e-09]

    References:
      Malladi, S. et al. (2022). On the SDEs and Scaling Rules for Adaptive Gradient
      Algorithms.
      Granziol, D. et al. (2022). Learning Rates as a Function of Batch Size: the
      square root from the extremal eigenvalues of the batch Hessian.
    """
    ratio = np.asarray(new_batch / batch)
    new_b1, new_b2 = 1 - ratio * (1 - np.asarray(b1)), 1 - ratio * (1 - np.asarray(b2))
    for name, decay in (("b1", new_b1), ("b2", new_b2)):
        if np.any(decay < 0):
            raise ValueError(
                f"{name}: the rule gives {np.min(decay):.3g} at new_batch={new_batch};"
                " a decay cannot be negative. Scale it with scaled_decay"
            )
    root = np.sqrt(ratio)
    return AdamSettings(root * learning_rate, new_b1, new_b2, eps / root)


def half_life(decay: Any, *, batch: Any) -> Any:
    r"""The data over which a moving average forgets half of what it holds.

    .. math:: t_{1/2} = B \ln 2 / \ln(1 / \beta)

    Args:
      decay: :math:`\beta` a step, below one.
      batch: B, tokens (or examples) a step.

    Returns:
      The half-life in the unit of `batch`.

    Example:
      >>> print(round(half_life(0.95, batch=512), 1))
      6918.9
    """
    return batch * np.log(2) / -np.log(decay)


def decay_of_half_life(tokens: Any, *, batch: Any) -> Any:
    r"""The decay a step with a half-life in data: :math:`\beta = 2^{-B / t_{1/2}}`.

    The inverse of `half_life`.

    Args:
      tokens: :math:`t_{1/2}`, in the unit of `batch`.
      batch: B, tokens (or examples) a step.

    Example:
      >>> print(round(float(decay_of_half_life(6918.9, batch=512)), 4))
      0.95
    """
    return np.exp2(-np.asarray(batch) / tokens)


def scaled_decay(decay: Any, *, batch: Any, new_batch: Any) -> Any:
    r"""A moment's decay with its half-life in data held: :math:`\beta' = \beta^\kappa`.

    For small batches, down to one, this is what keeps Adam's second moment an average
    over the same data. The first moment's matters less. The learning rate then grows
    with the batch more slowly than `square_root_rule` says.

    Args:
      decay: :math:`\beta` a step at `batch`.
      batch: B, in any unit.
      new_batch: B', in the same.

    Example:
      >>> print(f"{scaled_decay(0.95, batch=512, new_batch=1):.8f}")
      0.99989982

    References:
      Marek, M. et al. (2025). Small Batch Size Training for Language Models: When
      Vanilla SGD Works, and Why Gradient Accumulation Is Wasteful.
    """
    return np.asarray(decay) ** (np.asarray(new_batch) / batch)


def critical_batch_rule(
    learning_rate: Any, *, batch: Any, new_batch: Any, critical_batch: Any
) -> Any:
    r"""The learning rate of SGD on both sides of the critical batch size.

    .. math:: \eta' = \eta\, \frac{1 + B_{crit} / B}{1 + B_{crit} / B'}

    the linear rule far below :math:`B_{crit}`, a constant far above.

    Args:
      learning_rate: :math:`\eta`, tuned at `batch`.
      batch: B, in any unit.
      new_batch: B', in the same.
      critical_batch: :math:`B_{crit}`, in the same: of `fit_critical_batch`, or the
        noise scale of `gnomon.dynamics.noise_scale`.

    Example:
      >>> print(round(critical_batch_rule(
      ...     0.1, batch=64, new_batch=4096, critical_batch=512), 4))
      0.8

    References:
      McCandlish, S., Kaplan, J., Amodei, D. (2018). An Empirical Model of Large-Batch
      Training.
    """
    return (
        learning_rate * (1 + critical_batch / batch) / (1 + critical_batch / new_batch)
    )


def weight_decay_rule(
    weight_decay: Any,
    *,
    learning_rate: Any,
    new_learning_rate: Any,
    batch: Any,
    new_batch: Any,
    data_ratio: Any = 1.0,
) -> Any:
    r"""The weight decay that keeps AdamW's timescale as a share of the run.

    .. math::
       \lambda' = \lambda\, \frac{B'}{B} \frac{\eta}{\eta'} \frac{D}{D'}
       \quad\text{so that}\quad
       \frac{B'}{\eta' \lambda' D'} = \frac{B}{\eta \lambda D}

    (`adamw_timescale`). At one rate and one length the decay is proportional to the
    batch.

    Args:
      weight_decay: :math:`\lambda`, of decay multiplied by the learning rate.
      learning_rate: :math:`\eta`, the peak it was tuned with.
      new_learning_rate: :math:`\eta'`.
      batch: B, in any unit.
      new_batch: B', in the same.
      data_ratio: D' / D, by how much more data the new run sees.

    Example:
      >>> print(round(weight_decay_rule(0.1, learning_rate=1e-3,
      ...     new_learning_rate=2e-3, batch=256, new_batch=1024), 6))
      0.2

    References:
      Wang, X. and Aitchison, L. (2024). How to set AdamW's weight decay as you scale
      model and dataset size.
      Bergsma, S. et al. (2025). Power Lines: Scaling Laws for Weight Decay and Batch
      Size in LLM Pre-training.
    """
    return (
        weight_decay
        * (new_batch / batch)
        * (learning_rate / new_learning_rate)
        / data_ratio
    )
