"""The penalty on the norm of the gradient that small batches bring along unasked."""

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.curvature import hessian_product
from gnomon.optimizers.mechanisms.perturb import (
    Displaced,
    displaced_gradient,
    gradient_function,
)
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import (
    ScalarOrSchedule,
    at_step,
    require_choice,
    require_params,
    require_within,
)
from gnomon.parameters.products import inner_product
from gnomon.parameters.trees import compute_dtype, map_leaves, safe_divide

__all__ = ["add_gradient_penalty"]

Method: TypeAlias = Literal["forward", "exact"]


def add_gradient_penalty(
    learning_rate: ScalarOrSchedule,
    strength: jax.typing.ArrayLike = 0.5,
    *,
    method: Method = "forward",
    eps: jax.typing.ArrayLike = 1e-2,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of a penalty on the squared norm of the gradient.

    .. math::
      g \leftarrow g + \frac{\eta \kappa}{4} H g
        = \nabla \Big(L + \frac{\eta \kappa}{8} \|\nabla L\|^2\Big)

    with :math:`H` the Hessian of the batch: what small steps on small batches do
    implicitly, for training on the full batch. :math:`H g` is a forward difference,

    .. math::
      H g \approx \frac{\|g\|}{\epsilon} \Big(\nabla L\big(w + \epsilon
        \frac{g}{\|g\|}\big) - g\Big),

    or exact, by differentiating along :math:`g`. It stands first in a chain, before
    clipping and the optimizer.

    Args:
      learning_rate: :math:`\eta` of the optimizer behind it, a scalar or the same
        schedule.
      strength: :math:`\kappa \ge 0`, default 0.5.
      method: ``"forward"``, a second gradient, the default, or ``"exact"``.
      eps: :math:`\epsilon`, the length of the difference, default 1e-2.

    Returns:
      The transform, ascent-signed as the gradient is. It needs ``params`` in
      ``update``, and ``grad_fn(params)``, or the loss as ``obj_fn(params)`` or
      ``value_fn(params)``.

    Raises:
      ValueError: if ``params`` or all of the functions are missing, a hyperparameter is
        not one number or out of range, or ``method`` is none of the above.

    Example:
      >>> loss = lambda w: jnp.sum(jnp.array([1.0, 8.0]) * w**2) / 2
      >>> optimizer = optax.chain(
      ...     add_gradient_penalty(0.1, 2.0, method="exact"), optax.sgd(0.1))
      >>> w = jnp.array([1.0, 1.0])
      >>> grads, state = jax.grad(loss)(w), optimizer.init(w)
      >>> print(optimizer.update(grads, state, w, obj_fn=loss)[0])
      [-0.105 -1.12 ]

    References:
      Geiping et al., `Stochastic Training is Not Necessary for Generalization
      <https://arxiv.org/abs/2109.14119>`_, 2022; Smith et al., `On the Origin of
      Implicit Regularization in Stochastic Gradient Descent
      <https://arxiv.org/abs/2101.12176>`_, 2021

    Differences:
      The penalty is that of the whole batch; the authors add it block by block, of 128
      examples each, and average. Their third variant, and the objective that they log,
      have :math:`\eta \kappa / 4` in front of the norm: twice the penalty of their
      default, which is the one here.
    """
    require_within("[0, inf)", learning_rate=learning_rate, strength=strength)
    require_within("(0, inf)", eps=eps)
    require_choice("method", method, Method)

    def init_fn(params: optax.Params) -> optax.ScaleByScheduleState:
        return optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: optax.ScaleByScheduleState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.ScaleByScheduleState]:
        require_params(params, "add_gradient_penalty")
        rate = at_step("learning_rate", learning_rate, state.count)

        def add(g: jax.Array, curved: jax.Array) -> tuple[jax.Array]:
            dtype = compute_dtype(g.dtype)
            share = jnp.asarray(rate, dtype) * jnp.asarray(strength, dtype) / 4
            return ((g.astype(dtype) + share * curved.astype(dtype)).astype(g.dtype),)

        curved = (
            _derivative(extra_args, updates, params)
            if method == "exact"
            else _difference(extra_args, updates, params, state.count, eps)
        )
        (penalized,) = map_leaves(add, updates, (), curved)
        count = optax.safe_increment(state.count)
        return penalized, optax.ScaleByScheduleState(count)

    return transformation("add_gradient_penalty", init_fn, update_fn)


def _derivative(extra_args: Mapping[str, Any], grads: Any, params: Any) -> Any:
    """``H g`` exactly; leaves without a gradient stay where they are."""
    (along,) = map_leaves(
        lambda w, g: (jnp.zeros_like(w) if g is None else g,),
        params,
        (),
        grads,
    )
    return hessian_product("add_gradient_penalty", extra_args)(params, along)


def _difference(
    extra_args: Mapping[str, Any],
    grads: Any,
    params: Any,
    count: jax.Array,
    eps: Any,
) -> Any:
    """``H g`` by a forward difference of length ``eps``; 0 where ``g`` is 0."""
    gradient = gradient_function("add_gradient_penalty", extra_args)
    length = jnp.sqrt(inner_product(grads, grads))

    def displace(grads: Any, params: Any, count: jax.Array) -> Displaced:
        def move(g: jax.Array, w: jax.Array) -> tuple[jax.Array]:
            dtype = compute_dtype(w.dtype)
            by = safe_divide(jnp.asarray(eps, dtype), length.astype(dtype))
            return (w.astype(dtype) + by * g.astype(dtype),)

        def slope(there: Any, here: Any) -> Any:
            def rise(g: jax.Array, t: jax.Array) -> tuple[jax.Array]:
                dtype = compute_dtype(g.dtype)
                by = safe_divide(length, jnp.asarray(eps, length.dtype)).astype(dtype)
                return (by * (t.astype(dtype) - g.astype(dtype)),)

            return map_leaves(rise, here, (), there)[0]

        return Displaced(map_leaves(move, grads, (), params)[0], slope)

    return displaced_gradient(displace, grads, params, count, gradient)
