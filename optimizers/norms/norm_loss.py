"""Norm loss: a pull of every unit's norm toward a target."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.composition import norm_control
from gnomon.optimizers.mechanisms.descent import descend
from gnomon.optimizers.mechanisms.inner import ascending
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.leafwise import Hyperparameters, leafwise
from gnomon.optimizers.mechanisms.sets import View, norm_plan
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules, unit_norm

__all__ = ["AddNormLossState", "add_norm_loss", "norm_loss"]

RECOMMENDED = {
    "norm_loss": dict(
        direction=dict(name="optax.trace", decay=0.9), learning_rate=0.1, rate=1e-4
    )
}


class AddNormLossState(NamedTuple):
    """State of :func:`add_norm_loss`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]


def add_norm_loss(
    rate: ScalarOrSchedule = 1e-4,
    *,
    target: jax.typing.ArrayLike = 1.0,
    eps: jax.typing.ArrayLike = 1e-8,
    constrained: Where | None = None,
    view: View = "unit",
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of a loss on the norms of output units.

    The loss :math:`\lambda \sum_i (\|w_i\| - \tau)^2` over units :math:`i` draws every
    unit to the sphere of radius :math:`\tau`. With :math:`u` the incoming updates,
    ascent-signed, emits

    .. math::
      u_i + 2 \lambda \Big(1 - \frac{\tau}{\|w_i\| + \epsilon}\Big) w_i.

    Like ``optax.add_decayed_weights`` it stands before the learning rate: after a
    preconditioner the pull is decoupled from it, before one it is part of the gradient.
    With :math:`\tau = 0` it is weight decay at rate :math:`2 \lambda`.

    Args:
      rate: the factor :math:`\lambda`, a scalar or a schedule, default 1e-4.
      target: the norm :math:`\tau`, default 1.
      eps: added to the norm, default 1e-8. A zero unit has no direction and is not
        moved.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default every leaf that has units.
      view: one norm a "unit", the default, or a "layer" (Frobenius).
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``constrained`` matches no leaf, or an enclosing transform already
        controls the norm of a leaf.

    Example:
      The first unit is too long, the second too short:

      >>> pull = add_norm_loss(0.25)
      >>> w = jnp.array([[0.0, 0.0], [2.0, 0.5]])
      >>> updates, state = pull.update(jnp.zeros((2, 2)), pull.init(w), w)
      >>> print(updates)
      [[ 0.    0.  ]
       [ 0.5  -0.25]]

    References:
      Georgiou et al., `Norm Loss: An efficient yet effective regularization method for
      deep neural networks <https://arxiv.org/abs/2103.06583>`_, 2021

      Wright and Demeure, `Ranger21: a synergistic deep learning optimizer
      <https://arxiv.org/abs/2106.13731>`_, 2021: the decoupled form and the default
      rate.

    Differences:
      Ranger21's code applies the pull to the last tensor of a parameter group only;
      here every selected leaf is pulled, as its paper says. A target other than 1 is an
      addition.
    """

    def rule(h: Hyperparameters, u: jax.Array, w: jax.Array) -> jax.Array:
        norm = unit_norm(w, h.axes)
        excess = 1 - h.target / jnp.where(norm > 0, norm + h.eps, 1)
        return u + 2 * h.rate * excess * w

    plan = norm_plan(constrained, view, rules, stacked)
    pull = leafwise(
        "add_norm_loss",
        rule,
        AddNormLossState,
        (),
        {"[0, inf)": dict(rate=rate, target=target, eps=eps)},
        plan=plan,
    )

    def init_fn(params: optax.Params) -> AddNormLossState:
        chosen = jax.tree.map(lambda w, axes: axes is not None, params, plan(params))
        with norm_control("add_norm_loss", chosen):
            state: AddNormLossState = pull.init(params)
            return state

    return transformation("add_norm_loss", init_fn, pull.update)


def norm_loss(
    direction: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule,
    *,
    rate: ScalarOrSchedule = 1e-4,
    target: jax.typing.ArrayLike = 1.0,
    eps: jax.typing.ArrayLike = 1e-8,
    constrained: Where | None = None,
    view: View = "unit",
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Any direction, the decoupled pull of norm loss, and the learning rate.

    With :math:`p` the direction,

    .. math::
      w_i \leftarrow w_i - \eta \Big(p_i
        + 2 \lambda \Big(1 - \frac{\tau}{\|w_i\| + \epsilon}\Big) w_i\Big).

    Args:
      direction: an ascent-signed direction without a learning rate, such as
        ``optax.scale_by_adam()``.
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      rate: see :func:`add_norm_loss`, as the rest.
      target: the norm :math:`\tau`.
      eps: added to the norm.
      constrained: which leaves.
      view: one norm a "unit" or a "layer".
      rules: ordered ``(regex, axes)`` pairs.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: as :func:`add_norm_loss`, or if ``direction`` descends.
      TypeError: if ``direction`` is no transform.

    Example:
      >>> optimizer = norm_loss(optax.identity(), 1.0, rate=0.25)
      >>> w = jnp.array([[3.0], [4.0]])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(jnp.zeros_like(w), state, w)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"{jnp.linalg.norm(w):.2f}", end=" ")
      3.00 2.00 1.50
    """
    pull = add_norm_loss(
        rate,
        target=target,
        eps=eps,
        constrained=constrained,
        view=view,
        rules=rules,
        stacked=stacked,
    )
    ascent = layered(ascending("direction", direction), stacked)
    chain = optax.chain(ascent, pull, descend(learning_rate))
    return transformation("norm_loss", *chain)
