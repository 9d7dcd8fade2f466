"""Hyperball: steps of a given angle on the sphere of the initial norm."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from gnomon.kernels import Implementation
from gnomon.kernels import fixed_norm as kernel
from gnomon.optimizers.mechanisms.composition import norm_control
from gnomon.optimizers.mechanisms.constrain import blank_reference, when
from gnomon.optimizers.mechanisms.diagnostics import mean_of, tells
from gnomon.optimizers.mechanisms.fused import (
    FusedTransformation,
    kept,
    leaf_keys,
    leaf_shardings,
    with_kernel,
)
from gnomon.optimizers.mechanisms.inner import ascending
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.sets import View, fixed_norm, norm_plan
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import (
    ScalarOrSchedule,
    at_step,
    require_params,
    require_within,
)
from gnomon.parameters.roles import Role, roles
from gnomon.parameters.select import Where
from gnomon.parameters.stacks import declare
from gnomon.parameters.trees import compute_dtype, map_leaves
from gnomon.parameters.units import Axes, Rules

__all__ = ["HyperballState", "hyperball"]

RECOMMENDED = {
    "hyperball": dict(
        direction=dict(name="optax.scale_by_adam", b1=0.9, b2=0.99, eps=1e-8),
        learning_rate=0.01,
        free_learning_rate=3e-3,
    )
}


@tells(
    "radius",
    "mean of the norms that layers are held at",
    lambda state: mean_of(state.radius),
)
class HyperballState(NamedTuple):
    """State of :func:`hyperball`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    inner: optax.OptState  # the state of the wrapped direction
    radius: Any  # norms R before the first update; zeros until then


def hyperball(
    direction: optax.GradientTransformation,
    learning_rate: ScalarOrSchedule,
    *,
    free_learning_rate: ScalarOrSchedule | None = None,
    constrained: Where | None = None,
    view: View = "layer",
    floor: jax.typing.ArrayLike = 0.0,
    rules: Rules | None = None,
    stacked: str | None = None,
    implementation: Implementation | None = None,
) -> FusedTransformation:
    r"""Hyperball: weights of constant norm, updates of constant norm.

    With :math:`u` the direction and :math:`R` the norm of the weight
    before the first update,

    .. math::
      W \leftarrow R\, \frac{W - \eta R\, u / \|u\|}{\|W - \eta R\, u / \|u\|\|}.

    The learning rate is the angle of a step in radians, to first order: only the
    way that :math:`u` points matters, and nothing is projected to the tangent. There is
    no weight decay; its place is taken by the learning rate, which does what
    :math:`\sqrt{\eta \lambda}` does to a decayed run in equilibrium. The scale of the
    initialization becomes a hyperparameter, because it is kept.

    Args:
      direction: an ascent-signed direction without a learning rate, such as
        ``optax.scale_by_adam()`` (AdamH).
      learning_rate: the angle :math:`\eta`, a scalar or a schedule.
      free_learning_rate: step size of the direction on the other leaves, a scalar
        or a schedule, default ``learning_rate``.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default every leaf that has units
        and is no embedding.
      view: one norm a "layer" (Frobenius), the default, or a "unit".
      floor: smallest radius :math:`R`, default 0. A leaf with :math:`R = 0` (an output
        layer that starts at zero) would stay zero; it is treated as one of the others.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.
      implementation: how ``apply`` runs, ``"xla"``, ``"tpu"`` or ``"gpu"``; default the
        kernel where it is known to be faster, see :mod:`gnomon.kernels`.

    Returns:
      The optimizer. It needs ``params`` in ``update``, and has the fused entry point of
      :func:`gnomon.optimizers.apply_fused`, which reads ``shardings`` and
      ``rounding_key`` as :func:`gnomon.optimizers.adamp`'s does.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``constrained`` matches no leaf, a transform inside controls norms too or
        is known to decay a constrained leaf, ``direction`` descends, or
        ``implementation`` cannot run.
      TypeError: if ``direction`` is no transform.

    Example:
      >>> optimizer = hyperball(optax.trace(0.9), 0.1)
      >>> w = {"kernel": jnp.array([[3.0], [4.0]])}
      >>> g = {"kernel": jnp.array([[4.0], [-3.0]])}
      >>> updates, state = optimizer.update(g, optimizer.init(w), w)
      >>> moved = optax.apply_updates(w, updates)["kernel"]
      >>> print(f"norm {jnp.linalg.norm(moved):.4f}")
      norm 5.0000
      >>> cosine = (moved * w["kernel"]).sum() / 25
      >>> print(f"angle {jnp.arccos(cosine):.3f}")
      angle 0.100

    References:
      Wen et al., `Fantastic Pretraining Optimizers and Where to Find Them II: Hyperball
      Optimization <https://arxiv.org/abs/2606.16899>`_, 2026

    Differences:
      Kernels of more than two axes (attention, convolution) are taken as one matrix.
      The authors give every projection matrix of a transformer to the method; here an
      output layer is among them too, unless ``constrained`` leaves it out.
    """
    kernel.explain(implementation=implementation)  # refuses what cannot run
    require_within("[0, inf)", learning_rate=learning_rate)
    if free_learning_rate is not None:
        require_within("[0, inf)", free_learning_rate=free_learning_rate)
    wrapped = layered(ascending("direction", direction), stacked)

    def kernels(params: optax.Params) -> Any:
        return jax.tree.map(
            lambda role: role.role in ("hidden", "head"),
            roles(params, rules, stacked),
            is_leaf=lambda node: isinstance(node, Role),
        )

    chosen = kernels if constrained is None else constrained
    plan = norm_plan(chosen, view, rules, stacked)
    sphere = fixed_norm(
        constrained=chosen, view=view, floor=floor, rules=rules, stacked=stacked
    )
    capture = sphere.capture
    assert capture is not None

    def init_fn(params: optax.Params) -> HyperballState:
        control = norm_control("hyperball", sphere.selects(params), allows_decay=False)
        with declare(stacked), control:
            inner_state = wrapped.init(params)
        count = jnp.zeros([], jnp.int32)
        return HyperballState(count, inner_state, blank_reference(sphere, params))

    def begin(
        updates: optax.Updates,
        state: HyperballState,
        params: optax.Params | None,
        extra_args: Mapping[str, Any],
    ) -> tuple[optax.Updates, Any, Any, HyperballState]:
        """Directions, radii, the angle, the rate of free leaves, and the next state."""
        require_params(params, "hyperball")
        directions, inner_state = wrapped.update(
            updates, state.inner, params, **extra_args
        )
        radius = state.radius
        if jax.tree.leaves(params):
            radius = when(state.count == 0, lambda _: capture(params), radius)
        angle = at_step("learning_rate", learning_rate, state.count)
        rate = angle
        if free_learning_rate is not None:
            rate = at_step("free_learning_rate", free_learning_rate, state.count)
        count = optax.safe_increment(state.count)
        return directions, angle, rate, HyperballState(count, inner_state, radius)

    def update_fn(
        updates: optax.Updates,
        state: HyperballState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, HyperballState]:
        directions, angle, rate, state = begin(updates, state, params, extra_args)

        def step(
            direction: jax.Array, param: jax.Array, axes: Axes | None, norm: jax.Array
        ) -> tuple[jax.Array]:
            dtype = compute_dtype(param.dtype)
            u, w = direction.astype(dtype), param.astype(dtype)
            free = -jnp.asarray(rate, dtype) * u
            if axes is None:
                return (free.astype(param.dtype),)
            to = kernel.step(
                *(w, u, norm),
                rate=-jnp.asarray(rate, dtype),
                angle=-jnp.asarray(angle, dtype),
                reduce=axes.reduce,
                implementation="xla",
            )
            return (jnp.where(norm > 0, to - w, free).astype(param.dtype),)

        radius = state.radius if jax.tree.leaves(params) else directions
        (updates,) = map_leaves(step, directions, (), params, plan(params), radius)
        return updates, state

    unfused = transformation("hyperball", init_fn, update_fn)

    def implementations(state: HyperballState, params: optax.Params) -> Any:
        def taken(param: jax.Array) -> str:
            return kernel.explain(
                param.dtype,
                shape=param.shape,
                implementation=implementation,
                fall_back=True,
            ).implementation

        return jax.tree.map(taken, params)

    def apply_fn(
        grads: optax.Updates,
        state: HyperballState,
        params: optax.Params,
        *,
        shardings: Any,
        rounding_key: jax.Array | None,
        **extra_args: Any,
    ) -> tuple[optax.Params, HyperballState]:
        directions, angle, rate, state = begin(grads, state, params, extra_args)

        def step(
            direction: jax.Array,
            param: jax.Array,
            axes: Axes | None,
            norm: jax.Array,
            sharding: NamedSharding | None,
            key: jax.Array | None,
        ) -> tuple[jax.Array]:
            if axes is None:
                # A layer of norm zero is free.
                axes, norm = Axes().layer(param.ndim), jnp.zeros((1,) * param.ndim)
            moved = kernel.step(
                param,
                direction,
                norm,
                rate=-jnp.asarray(rate),
                angle=-jnp.asarray(angle),
                reduce=axes.reduce,
                stack=axes.stack,
                key=key,
                sharding=sharding,
                implementation=implementation,
                fall_back=True,
            )
            return (moved,)

        (moved,) = map_leaves(
            step,
            directions,
            (),
            params,
            plan(params),
            state.radius if jax.tree.leaves(params) else directions,
            leaf_shardings(shardings, params),
            leaf_keys(rounding_key, params),
        )
        return kept(moved, params), state

    return with_kernel("hyperball", unfused, implementations, apply_fn)
