"""The last link of an optimizer: a step against the direction, and decay."""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.kernels import Choice, Implementation
from gnomon.kernels.companding import Coded
from gnomon.optimizers.mechanisms.fused import (
    FusedTransformation,
    kept,
    leaf_keys,
    leaf_shardings,
    with_kernel,
)
from gnomon.optimizers.mechanisms.leafwise import (
    Hyperparameters,
    Leafwise,
    leafwise,
)
from gnomon.parameters.checks import ScalarOrSchedule, at_step, require_choice

__all__ = ["DescendState", "descend"]

Decay = Literal["scaled", "independent", "cautious"]


class DescendState(NamedTuple):
    """State of :func:`descend`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]


def descend(
    learning_rate: ScalarOrSchedule,
    weight_decay: ScalarOrSchedule | None = None,
    *,
    weight_decay_mask: optax.MaskOrFn | None = None,
    decay: Decay = "scaled",
    stacked: str | None = None,
    name: str = "descend",
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies updates by minus the learning rate, and decays the weights.

    With :math:`u` the incoming updates, emits, by the convention of decay,

    ==================  ======================================================
    ``"scaled"``        :math:`-\eta\, (u + \lambda w)`, as in ``optax.adamw``
    ``"independent"``   :math:`-\eta\, u - \lambda w`
    ``"cautious"``      :math:`-\eta\, (u + \lambda w\, [u w \ge 0])`: where step and
                        decay pull the same way
    ==================  ======================================================

    Behind a direction it makes a complete optimizer, as every wrapper takes one:
    ``lawn(optax.chain(optax.scale_by_adam(), descend(1e-3)), free_steps=100)``.

    Unlike ``optax.scale_by_learning_rate`` the product is taken in float32 and rounded
    once to the dtype of the update, so a float32 learning rate, traced or not, leaves
    bfloat16 updates in bfloat16 and is itself not rounded. The state is the same for
    a number and for a schedule.

    Args:
      learning_rate: :math:`\eta`, a scalar, a 0-d array or tracer, or a schedule.
      weight_decay: :math:`\lambda`, a scalar or a schedule; None, the default, does not
        decay. An independent one follows the schedule of the learning rate only if it
        is a schedule itself.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      decay: the convention, default ``"scaled"``.
      stacked: regex of the leaves that stack layers along axis 0, for a mask that is a
        function.
      name: the optimizer that this ends, for messages.

    Returns:
      The transform. It needs ``params`` in ``update`` if there is a weight decay.

    Raises:
      ValueError: if a number is not one number or out of range, ``decay`` is unknown,
        or ``params`` is missing.

    Example:
      >>> step = descend(0.1)
      >>> updates, w = jnp.array([1.0, -2.0]), jnp.array([3.0, 3.0])
      >>> print(step.update(updates, step.init(w))[0])
      [-0.1  0.2]
      >>> for decay in ("scaled", "independent", "cautious"):
      ...     step = descend(0.1, 0.5, decay=decay)
      ...     print(step.update(updates, step.init(w), w)[0])
      [-0.25  0.05]
      [-1.6 -1.3]
      [-0.25  0.2 ]

    References:
      Loshchilov and Hutter, `Decoupled Weight Decay Regularization
      <https://arxiv.org/abs/1711.05101>`_, 2019: decay that the learning rate does not
      scale. There both follow one schedule.

      Chen et al., `Cautious Weight Decay <https://arxiv.org/abs/2510.12402>`_, 2025
    """
    require_choice("decay", decay, Decay)
    numbers = dict(learning_rate=learning_rate)
    if weight_decay is not None:
        numbers["weight_decay"] = weight_decay
    independent = decay == "independent"

    def rule(h: Hyperparameters, u: jax.Array, w: jax.Array | None) -> jax.Array:
        if w is None:
            return -h.learning_rate * u
        pull = h.weight_decay * w
        if independent:
            return -(h.learning_rate * u + pull)
        if decay == "cautious":  # signs, because the product may underflow
            pull = jnp.where(jnp.sign(u) * jnp.sign(w) >= 0, pull, 0)
        return -h.learning_rate * (u + pull)

    def says(now):
        pull = now.get("weight_decay", 0.0)
        return dict(shrinkage=pull if independent else now["learning_rate"] * pull)

    # Cautious decay removes what hangs on the direction, a mask what hangs on the leaf.
    told = says if decay != "cautious" and weight_decay_mask is None else None
    return leafwise(
        name,
        rule,
        DescendState,
        (),
        {"[0, inf)": numbers},
        weight_decay_mask=weight_decay_mask,
        stacked=stacked,
        plan=lambda tree: jax.tree.map(lambda _: (), tree),
        needs_params=weight_decay is not None,
        complex_leaves=weight_decay is None,
        says=told,
    )


def descending(
    name: str,
    direction: Leafwise,
    learning_rate: ScalarOrSchedule,
    kernel: Callable[..., tuple[Any, ...]],
    explain: Callable[..., Choice],
    implementation: Implementation | None,
    *,
    takes_codes: bool = False,
) -> FusedTransformation:
    """A direction and the step against it, in one kernel where one is taken.

    Args:
      name: the optimizer's name, for messages.
      direction: the direction, with its weight decay.
      learning_rate: a scalar, traced or not, or a schedule.
      kernel: ``kernel(h, g, w, *slots, learning_rate=, count=, key=, sharding=,
        implementation=, fall_back=)`` is the new leaf and the new slots.
      explain: the kernel's own; it takes the dtypes of the leaf and of the first slot.
      implementation: ``"xla"``, ``"tpu"``, ``"gpu"``, or None to pick.
      takes_codes: whether the kernel takes slots in eight bits, and with them
        ``block=``, ``stochastic=`` and ``layers=``. Default False.

    Returns:
      The optimizer, with the fused entry point of
      :func:`gnomon.optimizers.apply_fused`.

    Raises:
      ValueError: if ``implementation`` cannot run.
    """
    explain(implementation=implementation)  # refuses what cannot run
    how = dict(implementation=implementation, fall_back=True)
    unfused = optax.chain(direction, descend(learning_rate))

    def implementations(state: optax.OptState, params: optax.Params) -> Any:
        def taken(param: jax.Array, moment: jax.Array) -> str:
            moment_dtype = moment.dtype
            chosen = explain(
                param.dtype, moment_dtype=moment_dtype, shape=param.shape, **how
            )
            return chosen.implementation

        return jax.tree.map(taken, params, state[0][1])

    def apply_fn(
        grads: optax.Updates,
        state: optax.OptState,
        params: optax.Params,
        *,
        shardings: Any,
        rounding_key: jax.Array | None,
        coding: dict[str, Any] | None = None,
        layers: Any = None,
        **_: Any,
    ) -> tuple[optax.Params, optax.OptState]:
        scaling, descent = state
        rate = at_step("learning_rate", learning_rate, descent.count)
        count = optax.safe_increment(scaling.count)

        def on_leaf(h: Hyperparameters, *arrays_and_place: Any) -> tuple[Any, ...]:
            *arrays, sharding, key, depth = arrays_and_place
            place = dict(sharding=sharding, key=key)
            if any(isinstance(x, Coded) for x in arrays):
                assert coding is not None  # given to who takes codes
                place |= coding | dict(layers=depth)
            return kernel(h, *arrays, learning_rate=rate, count=count, **place, **how)

        depths = jax.tree.map(lambda _: 0, params) if layers is None else layers
        places = leaf_shardings(shardings, params), leaf_keys(rounding_key, params)
        moved, scaling = direction.on_leaves(
            *(on_leaf, grads, scaling, params, *places, depths)
        )
        descent = descent._replace(count=optax.safe_increment(descent.count))
        return kept(moved, params), (scaling, descent)

    coded = apply_fn if takes_codes else None
    return with_kernel(name, unfused, implementations, apply_fn, coded)
