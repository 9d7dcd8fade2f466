"""What the methods with a rate a layer have in common: the ratio and its leaves."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.leafwise import leafwise
from gnomon.optimizers.mechanisms.sets import norm_plan
from gnomon.parameters.checks import ScalarOrSchedule, require_choice
from gnomon.parameters.select import Where
from gnomon.parameters.trees import map_leaves
from gnomon.parameters.units import Axes, Rules, unit_norm

Denominator = Literal["paper", "sum"]


class LayerwiseState(NamedTuple):
    """State of :func:`gnomon.optimizers.lars` and its kin."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    velocity: optax.Updates  # of steps, the rate included, in the parameters' dtype


def trusted_layers(
    constrained: Where | None, rules: Rules | None, stacked: str | None
) -> Callable[[Any], Any]:
    """The axes of a whole layer at the selected leaves, and none at the others.

    Args:
      constrained: the leaves that have a ratio, default all that have units.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      A function from parameters to a tree of ``Axes``.
    """
    plan = norm_plan(constrained, "layer", rules, stacked)

    def axes_of(params: Any) -> Any:
        def of_leaf(leaf: Any, axes: Axes | None) -> tuple[Axes]:
            return (Axes() if axes is None else axes,)

        return map_leaves(of_leaf, params, (), plan(params))[0]

    return axes_of


def trust_ratio(weight: jax.Array, size: jax.Array, factor: jax.Array) -> jax.Array:
    """``factor weight / size``, and 1 where either norm is zero.

    Example:
      >>> norms = jnp.array([2.0, 0.0, 2.0]), jnp.array([4.0, 4.0, 0.0])
      >>> print(trust_ratio(*norms, jnp.array(0.1)))
      [0.05 1.   1.  ]
    """
    known = (weight > 0) & (size > 0)
    return jnp.where(known, factor * weight / jnp.where(known, size, 1), 1)


def layerwise_momentum(
    name: str,
    hyperparameters: dict[str, dict[str, Any]],
    learning_rate: ScalarOrSchedule,
    factor: Callable[[Any], jax.Array],
    *,
    nesterov: bool,
    rule: Denominator,
    constrained: Where | None,
    rules: Rules | None,
    stacked: str | None,
) -> optax.GradientTransformationExtraArgs:
    """Momentum of steps that have a rate a layer, see :func:`gnomon.optimizers.lars`.

    Args:
      name: the optimizer's, for messages.
      hyperparameters: its numbers by their intervals, ``weight_decay`` and ``momentum``
        among them.
      learning_rate: the rate of the steps.
      factor: what the ratio of norms is multiplied by, a function of a rule's numbers.
      nesterov: whether the momentum looks ahead.
      rule: what the weight's norm is divided by.
      constrained: the leaves that have a ratio and decay.
      rules: ordered ``(regex, axes)`` pairs.
      stacked: regex of the leaves that stack layers along axis 0.
    """
    require_choice("rule", rule, Denominator)

    def of_leaf(
        h: Any, g: jax.Array, w: jax.Array, velocity: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        step = h.learning_rate * g
        if h.axes.reduce:
            pull = g + h.weight_decay * w
            weight = unit_norm(w, h.axes)
            if rule == "paper":
                size = unit_norm(g, h.axes) + h.weight_decay * weight
            else:
                size = unit_norm(pull, h.axes)
            step = h.learning_rate * trust_ratio(weight, size, factor(h)) * pull
        velocity = h.momentum * velocity + step
        return -(h.momentum * velocity + step if nesterov else velocity), velocity

    rates = hyperparameters["[0, inf)"] | dict(learning_rate=learning_rate)
    return leafwise(
        name,
        of_leaf,
        LayerwiseState,
        (None,),
        hyperparameters | {"[0, inf)": rates},
        plan=trusted_layers(constrained, rules, stacked),
        stacked=stacked,
    )
