"""LARS: momentum whose steps are as long as a layer's weights, times a rate."""

from typing import Any

import jax
import optax

from gnomon.optimizers.trust.layers import Denominator, layerwise_momentum
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules

__all__ = ["lars"]

RECOMMENDED = {
    "lars": dict(learning_rate=0.3, weight_decay=1e-4, momentum=0.9, trust=0.01)
}


def lars(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 0.0,
    momentum: jax.typing.ArrayLike = 0.9,
    trust: jax.typing.ArrayLike = 1e-3,
    nesterov: bool = False,
    rule: Denominator = "paper",
    constrained: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""LARS: layer-wise adaptive rate scaling.

    With norms over a whole leaf, or a layer of one that stacks several,

    .. math::
      r = \frac{c\, \|w\|}{\|g\| + \lambda \|w\|}, \qquad
      m \leftarrow \mu m + \eta\, r\, (g + \lambda w), \qquad
      w \leftarrow w - m

    so that a step without momentum is at most :math:`\eta c` times as long as the
    weights, however large the gradient is. The ratio :math:`r` is 1 where the weights
    or the denominator are zero. Biases and gains have no ratio and do not decay.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule. It is part of the
        momentum, which a schedule therefore changes with a delay.
      weight_decay: weight decay :math:`\lambda`, a scalar or a schedule, default 0.
      momentum: decay :math:`\mu` of the momentum, default 0.9.
      trust: the coefficient :math:`c`, default 1e-3.
      nesterov: whether the step is :math:`\mu m` and the newest step, default False.
      rule: the denominator, ``"paper"`` as above, or ``"sum"``,
        :math:`\|g + \lambda w\|`, as in ``optax.lars``.
      constrained: which leaves have a ratio and decay: a regex found in the path, or a
        mask (a tree of bools, a prefix, or a function of the parameters); default every
        leaf that has units.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has a
        ratio of its own.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``rule`` is unknown, or ``constrained`` matches no leaf.

    Example:
      The length of a step is that of the weights, 5, whatever the gradient:

      >>> import jax.numpy as jnp
      >>> optimizer, w = lars(1.0, trust=0.1), {"kernel": jnp.array([[3.0], [4.0]])}
      >>> for scale in (1.0, 1000.0):
      ...     g = {"kernel": scale * jnp.array([[0.0], [1.0]])}
      ...     print(optimizer.update(g, optimizer.init(w), w)[0]["kernel"].T)
      [[-0.  -0.5]]
      [[-0.  -0.5]]

    References:
      You et al., `Large Batch Training of Convolutional Networks
      <https://arxiv.org/abs/1708.03888>`_, 2017

    Differences:
      ``optax.lars`` divides by the norm of the sum, ``rule="sum"``, and gives every
      leaf a ratio unless masks are passed. PyTorch ports keep the rate outside of the
      momentum, which is the same while it is constant.
    """
    numbers: dict[str, dict[str, Any]] = {
        "[0, 1)": dict(momentum=momentum),
        "[0, inf)": dict(weight_decay=weight_decay, trust=trust),
    }
    return layerwise_momentum(
        "lars",
        numbers,
        learning_rate,
        lambda h: h.trust,
        nesterov=nesterov,
        rule=rule,
        constrained=constrained,
        rules=rules,
        stacked=stacked,
    )
