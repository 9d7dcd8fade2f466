"""Gradients taken elsewhere: the weights are displaced, and the loss asked again."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.constrain import when
from gnomon.optimizers.mechanisms.diagnostics import means, note
from gnomon.optimizers.mechanisms.inner import complete
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_params, require_within
from gnomon.parameters.products import inner_product
from gnomon.parameters.trees import map_leaves, safe_divide

__all__ = ["Displaced", "PerturbState", "perturb"]

TURNED = means(
    "gradient_cosine", "cosine between the gradients at the point and at the weights"
)


class Displaced(NamedTuple):
    """Where a gradient is taken, and what becomes of it."""

    # The weights there, a tree like the parameters, in float32 or wider.
    points: Any
    # (gradient there, gradient at the weights) to the gradient that counts.
    combine: Callable[[Any, Any], Any] = lambda there, here: there


# (gradient, parameters, number of the update from 0) to a point.
Displace: TypeAlias = Callable[[Any, Any, jax.Array], Displaced]


class PerturbState(NamedTuple):
    """State of :func:`perturb`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    inner: optax.OptState  # the state of the wrapped optimizer


def gradient_function(
    name: str, extra_args: Mapping[str, Any]
) -> Callable[[optax.Params], optax.Updates]:
    """The gradient of the loss of this batch, as a function of the parameters.

    Args:
      name: the transform that needs it.
      extra_args: those of ``update``; ``grad_fn(params)``, ``obj_fn(params)`` and
        ``value_fn(params)`` are looked for, in this order.

    Returns:
      The function.

    Raises:
      ValueError: if none of the functions is there.
    """
    gradient: Callable[[optax.Params], optax.Updates] | None = extra_args.get("grad_fn")
    if gradient is not None:
        return gradient
    loss = extra_args.get("obj_fn") or extra_args.get("value_fn")
    if loss is None:
        raise ValueError(
            f"{name} needs the gradient at other points than the weights: pass the "
            "loss of this batch as a function of the parameters, `update(..., "
            "obj_fn=loss_fn)`, or its gradient as `grad_fn`."
        )
    return jax.grad(loss)


def displaced_gradient(
    displace: Displace,
    grads: optax.Updates,
    params: optax.Params,
    count: jax.Array,
    gradient: Callable[[optax.Params], optax.Updates],
) -> optax.Updates:
    """The gradient that counts, in the dtypes of the one at the weights."""
    points, combine = displace(grads, params, count)
    (points,) = map_leaves(
        lambda _, w, p: (p.astype(w.dtype),), grads, (), params, points
    )
    (whole,) = map_leaves(
        lambda w, g, p: (w if g is None else p,), params, (), grads, points
    )
    counts = combine(gradient(whole), grads)
    return map_leaves(lambda g, c: (c.astype(g.dtype),), grads, (), counts)[0]


def perturb(
    inner: optax.GradientTransformation,
    displace: Displace,
    *,
    every: jax.typing.ArrayLike = 1,
    stacked: str | None = None,
    name: str = "perturb",
) -> optax.GradientTransformationExtraArgs:
    r"""Hands to an optimizer the gradient at a displaced point.

    With :math:`g` the gradient at the weights and :math:`\tilde w` the point that
    ``displace`` gives,

    .. math::
      w \leftarrow w + \text{inner}\big(\text{combine}(\nabla L(\tilde w), g)\big),

    a second gradient of the same batch, with the same random numbers. The optimizer
    sees it in place of the first, as its ``grad`` too, while ``value`` remains the loss
    at :math:`w`. Updates number 1, 1 + ``every``, 1 + 2 ``every``, ... are such ones;
    the others are those of ``inner`` on :math:`g`, and take no second gradient.

    Args:
      inner: a complete optimizer, such as ``optax.sgd(0.1)``.
      displace: ``displace(grads, params, count)`` gives a :class:`Displaced`; ``count``
        is the number of updates before this one.
      every: period of the displaced gradients in updates, a whole number, default 1.
      stacked: regex of further leaves that stack layers along axis 0, for ``inner``;
        ``displace`` has to know of it too.
      name: the name of the transform, for messages.

    Returns:
      The optimizer. It needs ``params`` in ``update``, and ``grad_fn(params)``, or the
      loss as ``obj_fn(params)`` or ``value_fn(params)``. To
      :func:`gnomon.optimizers.observed` it tells ``gradient_cosine``, the cosine
      between the gradient that counted and the one at the weights.

    Raises:
      ValueError: if ``params`` or all of the functions are missing, ``every`` is not
        one whole number from 1 on, or ``inner`` climbs.
      TypeError: if ``inner`` is no transform.

    Example:
      The gradient half a step ahead (the midpoint rule for gradient flow):

      >>> def ahead(grads, params, count):
      ...     return Displaced(jax.tree.map(lambda w, g: w - 0.25 * g, params, grads))
      >>> optimizer = perturb(optax.sgd(0.5), ahead)
      >>> loss = lambda w: jnp.sum(w**2) / 2
      >>> w = jnp.array([1.0, 2.0])
      >>> grads, state = jax.grad(loss)(w), optimizer.init(w)
      >>> print(optimizer.update(grads, state, w, obj_fn=loss)[0])
      [-0.375 -0.75 ]
    """
    wrapped = layered(complete(inner), stacked)
    require_within("[1, inf)", every=every, whole=True)

    def init_fn(params: optax.Params) -> PerturbState:
        return PerturbState(jnp.zeros([], jnp.int32), wrapped.init(params))

    def update_fn(
        updates: optax.Updates,
        state: PerturbState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, PerturbState]:
        require_params(params, name)
        gradient = gradient_function(name, extra_args)

        def there(grads: optax.Updates) -> optax.Updates:
            return displaced_gradient(displace, grads, params, state.count, gradient)

        always = isinstance(every, int) and every == 1
        fires = always or state.count % jnp.asarray(every, jnp.int32) == 0
        counts = when(fires, there, updates)
        note(TURNED, lambda: (_cosine(counts, updates), 1))
        if extra_args.get("grad") is not None:
            extra_args["grad"] = counts
        counts, inner_state = wrapped.update(counts, state.inner, params, **extra_args)
        return counts, PerturbState(optax.safe_increment(state.count), inner_state)

    return transformation(name, init_fn, update_fn)


def _cosine(x: Any, y: Any) -> jax.Array:
    """Between two trees, 0 where one is zero."""
    squares = jnp.sqrt(inner_product(x, x)) * jnp.sqrt(inner_product(y, y))
    return safe_divide(inner_product(x, y), squares)
