r"""Where weight decay and the gradient noise hold a scale-invariant weight.

Steps across a scale-invariant weight make it longer, weight decay makes it shorter.
Balanced, the norm stands still and every step turns the weight by the same angle, which
depends on the hyperparameters alone. With learning rate :math:`\eta`, weight decay
:math:`\lambda` and gradients without correlation from step to step:

- SGD: :math:`\sqrt{2\eta\lambda}`
- SGD with momentum :math:`\beta`: :math:`\sqrt{2\eta\lambda / (1 + \beta)}`
- AdamW: :math:`\sqrt{2\eta\lambda (1 - \beta_1) / (1 + \beta_1)}`

SGD's momentum is the sum :math:`p_t = \beta p_{t-1} + g_t + \lambda w_t`, as in
``optax.chain(add_decayed_weights, sgd(momentum=...))``; AdamW's decay is outside of its
moments, times the learning rate.

References:
  Van Laarhoven, L2 Regularization versus Batch and Weight Normalization, 2017.
  Wan et al., Spherical Motion Dynamics, 2021.
  Kosson et al., Rotational Equilibrium, 2024.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.dynamics.motion import Motion, divide


class Rule(NamedTuple):
    """How the keywords of a method enter the formulas above.

    Attributes:
      momentum: the keyword that is the formula's momentum.
      decay: the keyword that is its weight decay.
      adaptive: which of the formulas holds.
      off: keywords that change the method's step; with one of them on, no formula
        holds.
    """

    momentum: str
    decay: str
    adaptive: bool
    off: tuple[str, ...] = ()


# The optimizers of other packages whose formula is derived above, by their functions,
# which say more than names of keywords: Lion and LAMB take b2 as well, Muon has another
# step. Those of this package say it themselves, see `gnomon.optimizers.balance`. For
# what is in neither nothing is predicted.
RULES: Mapping[Callable[..., Any], Rule] = {
    optax.adamw: Rule("b1", "weight_decay", adaptive=True, off=("nesterov", "mask")),
}


def rule_of(method: Any, keywords: Mapping[str, Any]) -> Rule | None:
    """The rule of another package's method, None where none is known.

    Args:
      method: the function that makes the optimizer.
      keywords: what it is called with.

    Example:
      >>> rule_of(optax.adamw, {"weight_decay": 0.1}).momentum
      'b1'
      >>> rule_of(optax.lion, {"b1": 0.9, "b2": 0.99, "weight_decay": 0.1})
    """
    rule = RULES.get(method)
    on = rule is not None and any(
        keywords.get(name) not in (None, False) for name in rule.off
    )
    return None if on else rule


class Equilibrium(NamedTuple):
    """The balance that is predicted; every field has the shape of the motion's.

    Attributes:
      angle: the angle of a step at equilibrium, in radians; NaN without weight decay,
        for then there is none.
      angle_ratio: the angle seen, in units of ``angle``; 1 at equilibrium.
      norm: the weight norm at equilibrium, from the norm and angle now; NaN where
        either is.
      norm_ratio: the norm now, in units of ``norm``; 1 at equilibrium, below 1 while
        the weight still grows.
    """

    angle: jax.Array
    angle_ratio: jax.Array
    norm: jax.Array
    norm_ratio: jax.Array


def equilibrium_angle(
    learning_rate: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    momentum: jax.typing.ArrayLike = 0.0,
    *,
    adaptive: bool = False,
) -> jax.Array:
    r"""The angle a step turns a scale-invariant weight by at equilibrium.

    It takes for granted that the norm has settled, and that a step without momentum is
    at right angles to the weights; the angle seen is below it where either errs so:

    - The norm still falls: some of the decay is not balanced by steps.
    - Steps push outward, which undoes decay. Adam's division by :math:`\sqrt v` tilts a
      gradient that is at right angles to the weights; and the gradient itself, SGD's
      too, is not once a normalization's epsilon counts beside short weights.

    What is left to balance is, on average over steps and to be passed as the decay,

    .. math::
      \lambda + \frac{\langle w, d\rangle}{|w|^2} + \frac{c}{\eta} \Delta \log |w|,

    where :math:`d` is the gradient and :math:`c = 1 - \beta` for SGD, and
    :math:`g / \sqrt v` and 1 for Adam.

    Args:
      learning_rate: of the step.
      weight_decay: its coefficient, before it is multiplied by the learning rate.
      momentum: SGD's momentum, or ``b1``.
      adaptive: whether the update does not depend on the gradient's scale (Adam), with
        decoupled decay.

    Returns:
      Radians; NaN where ``learning_rate * weight_decay`` is not positive.

    Example:
      >>> print(f"{equilibrium_angle(0.1, 0.005):.6f}")
      0.031623
      >>> print(f"{equilibrium_angle(0.001, 0.1, 0.9, adaptive=True):.6f}")
      0.003244
    """
    rate, decay, momentum = (
        jnp.asarray(x) for x in (learning_rate, weight_decay, momentum)
    )
    squared = 2 * rate * decay / (1 + momentum)
    if adaptive:
        squared = squared * (1 - momentum)
    return jnp.sqrt(jnp.where(squared > 0, squared, jnp.nan))


def equilibrium(
    motion: Motion,
    learning_rate: jax.typing.ArrayLike,
    weight_decay: jax.typing.ArrayLike,
    momentum: jax.typing.ArrayLike = 0.0,
    *,
    adaptive: bool = False,
) -> Equilibrium:
    r"""Compares the weights with where weight decay will hold them.

    An angle :math:`\theta` at norm :math:`|w|` becomes :math:`\theta^*` at the norm
    :math:`|w| \sqrt{\theta / \theta^*}` for SGD, whose angle falls as :math:`|w|^{-2}`,
    and at :math:`|w| \theta / \theta^*` for adaptive methods. The prediction is meant
    for layers whose weights are scale-invariant (``gradient_cosine`` about 0 on
    average); elsewhere the ratios merely describe.

    Args:
      motion: the record of a step.
      learning_rate: of the step.
      weight_decay: its coefficient.
      momentum: SGD's momentum, or ``b1``.
      adaptive: as in :func:`equilibrium_angle`.

    Returns:
      The prediction and how far from it the weights are.
    """
    dtype = motion.angle.dtype
    hypers: Any = (
        jnp.asarray(x, dtype) for x in (learning_rate, weight_decay, momentum)
    )
    target = equilibrium_angle(*hypers, adaptive=adaptive)
    angle = jnp.broadcast_to(target, motion.angle.shape)
    ratio = divide(motion.angle, angle)
    norm = motion.weight_norm * (ratio if adaptive else jnp.sqrt(ratio))
    return Equilibrium(angle, ratio, norm, divide(motion.weight_norm, norm))
