"""Products with the Hessian of the loss, and Newton's direction from them."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.perturb import gradient_function
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_params, require_within
from gnomon.parameters.products import inner_product
from gnomon.parameters.trees import compute_dtype

__all__ = ["scale_by_newton"]


def hessian_product(
    name: str, extra_args: Mapping[str, Any]
) -> Callable[[optax.Params, optax.Params], optax.Params]:
    """The Hessian-vector product of the first function among the extra args.

    Args:
      name: the transform that needs it.
      extra_args: those of ``update``; ``grad_fn(params)``, ``obj_fn(params)`` and
        ``value_fn(params)`` are looked for, in this order.

    Returns:
      ``product(params, vector)``, in float32 or wider.

    Raises:
      ValueError: if none of the functions is there.
    """
    gradient = gradient_function(name, extra_args)

    def product(params: optax.Params, vector: optax.Params) -> optax.Params:
        vector = jax.tree.map(lambda v, w: v.astype(w.dtype), vector, params)
        curved = jax.jvp(gradient, (params,), (vector,))[1]
        return jax.tree.map(lambda h: h.astype(compute_dtype(h.dtype)), curved)

    return product


def scale_by_newton(
    damping: jax.typing.ArrayLike = 0.0,
    *,
    steps: int = 100,
    tolerance: jax.typing.ArrayLike = 1e-5,
) -> optax.GradientTransformationExtraArgs:
    r"""The metric of the full Hessian: :math:`(H + \delta I)^{-1} g`.

    The system is solved by conjugate gradients on Hessian-vector products, so the
    matrix is never formed and any tree, sharded or not, will do. They stop at the first
    direction that is not of positive curvature, which leaves a direction of descent
    also where the damped Hessian is not positive definite: the gradient, at worst.

    Args:
      damping: :math:`\delta`, default 0.
      steps: the most Hessian-vector products an update makes, an integer, default
        100.
      tolerance: residual at which to stop, relative to the norm of the gradient,
        default 1e-5.

    Returns:
      The transform, ascent-signed; a preconditioner for :func:`sania`. It needs
      ``params`` and a function in ``update``, as :func:`scale_by_hutchinson` does.

    Raises:
      ValueError: if ``params`` or all of the functions are missing, or a hyperparameter
        is not one number or out of range.

    Example:
      >>> loss = lambda w: w[0] ** 2 + w[0] * w[1] + w[1] ** 2
      >>> newton = scale_by_newton()
      >>> w = jnp.array([1.0, 3.0])
      >>> grads, state = jax.grad(loss)(w), newton.init(w)
      >>> print(newton.update(grads, state, w, obj_fn=loss)[0].round(4))
      [1. 3.]

    References:
      Abdukhakimov et al., `SANIA: Polyak-type Optimization Framework Leads to Scale
      Invariant Stochastic Algorithms <https://arxiv.org/abs/2312.17369>`_, 2023
    """
    require_within("[0, inf)", damping=damping, tolerance=tolerance)
    require_within("[1, inf)", steps=steps, whole=True)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        require_params(params, "scale_by_newton")
        product = hessian_product("scale_by_newton", extra_args)

        def damped(vector: optax.Params) -> optax.Params:
            curved = product(params, vector)
            return jax.tree.map(
                lambda h, v: h + jnp.asarray(damping, h.dtype) * v, curved, vector
            )

        solution = _conjugate_gradients(damped, updates, steps, tolerance)
        return jax.tree.map(lambda s, g: s.astype(g.dtype), solution, updates), state

    return transformation(
        "scale_by_newton", lambda params: optax.EmptyState(), update_fn
    )


# Solution so far, residual, direction of search, squared residual, number of the step.
_Carry = tuple[optax.Params, optax.Params, optax.Params, jax.Array, jax.Array]


def _conjugate_gradients(
    matrix: Callable[[optax.Params], optax.Params],
    target: optax.Params,
    steps: int,
    tolerance: jax.typing.ArrayLike,
) -> optax.Params:
    """Solves ``matrix(x) = target`` for a positive definite operator on trees.

    Written out because the one in ``jax.scipy`` flattens every leaf.
    """
    target = jax.tree.map(lambda g: g.astype(compute_dtype(g.dtype)), target)
    first = inner_product(target, target)
    limit = jnp.square(jnp.asarray(tolerance, first.dtype)) * first

    def axpy(scale: jax.Array, x: optax.Params, y: optax.Params) -> optax.Params:
        return jax.tree.map(lambda a, b: scale.astype(a.dtype) * a + b, x, y)

    def open_(carry: _Carry) -> jax.Array:
        _, _, _, square, index = carry
        return (square > limit) & (index < steps)

    def body(carry: _Carry) -> _Carry:
        x, residual, search, square, index = carry
        image = matrix(search)
        curvature = inner_product(search, image)
        convex = curvature > 0
        # Else stop: with the solution so far, or with the gradient if there is none.
        fallback = jnp.where(index == 0, jnp.ones_like(square), 0)
        length = jnp.where(convex, square / jnp.where(convex, curvature, 1), fallback)
        x = axpy(length, search, x)
        residual = axpy(-length, image, residual)
        new = jnp.where(convex, inner_product(residual, residual), 0)
        search = axpy(new / square, search, residual)
        return x, residual, search, new, index + 1

    start = (
        optax.tree.zeros_like(target),
        target,
        target,
        first,
        jnp.zeros([], jnp.int32),
    )
    return jax.lax.while_loop(open_, body, start)[0]
