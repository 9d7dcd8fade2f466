"""Optimizers that walk in other coordinates than the model's."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.inner import complete
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_params
from gnomon.parameters.trees import compute_dtype

__all__ = ["ReparameterizeState", "reparameterize"]


class ReparameterizeState(NamedTuple):
    """State of :func:`reparameterize`."""

    latents: Any  # the coordinates the inner optimizer moves, float32 or wider
    inner: optax.OptState  # its state, made of the latents


def reparameterize(
    inner: optax.GradientTransformation,
    forward: Callable[[Any], Any],
    inverse: Callable[[Any], Any],
    *,
    name: str = "reparameterize",
) -> optax.GradientTransformationExtraArgs:
    r"""Lets an optimizer walk in latent coordinates; the model keeps plain weights.

    With :math:`w = f(z)`, where :math:`f` is ``forward``, :math:`J` its Jacobian at
    :math:`z`, and the latents :math:`z` start at ``inverse`` of the weights,

    .. math::
      z' = z + \text{inner}(J^\top \nabla_w L,\, z), \qquad
      \text{update} = f(z') - w .

    This is what training :math:`L(f(z))` with ``inner`` does, step for step, but
    neither the model nor its checkpoints know of it. One update costs one evaluation
    of ``forward`` and one of its vector-Jacobian product.

    The latents are the truth, and float32 or wider: bfloat16 weights are their rounded
    image, and roundings do not add up. A change made to the weights from outside
    between updates (a projection, a lookahead average) is therefore undone by the next
    update; to keep it, ``init`` anew from the changed weights. For the same reason this
    transform is the last link of a chain: what scales or drops its updates parts the
    weights from the latents.

    The extra args that speak of parameters are translated: ``grad`` is pulled back like
    the gradient, ``value_fn`` and ``obj_fn`` become functions of the latents and
    ``grad_fn`` their gradient. A ``grad`` that does not have the structure of the
    parameters (``optax.masked`` hands down that of the whole tree) is passed on as it
    is.

    Args:
      inner: a complete optimizer, such as ``optax.adam(1e-3)``. The trees it sees are
        those of ``inverse``.
      forward: a differentiable function from latents to weights.
      inverse: a function from weights to latents with ``forward(inverse(w)) = w``. It
        is called once, on weights in float32 or wider. It must also take a tree
        without leaves, with which optax asks for the layout of a state.
      name: what to call the transform in messages.

    Returns:
      The optimizer. It needs ``params`` in ``update``. A leaf whose gradient is None
      counts as one with a zero gradient.

    Raises:
      ValueError: if ``params`` is missing, or ``inner`` climbs.
      TypeError: if ``inner`` is no transform.

    Example:
      Gradient descent on :math:`z = \log w` is multiplicative in :math:`w`:

      >>> def log(tree):
      ...     return jax.tree.map(jnp.log, tree)
      >>> def exp(tree):
      ...     return jax.tree.map(jnp.exp, tree)
      >>> optimizer = reparameterize(optax.sgd(0.5), exp, log)
      >>> w, g = jnp.array([1.0, 4.0]), jnp.array([2.0, -0.5])
      >>> state = optimizer.init(w)
      >>> updates, state = optimizer.update(g, state, w)
      >>> print(optax.apply_updates(w, updates))
      [ 0.36787945 10.873127  ]
      >>> print(w * jnp.exp(-0.5 * g * w))
      [ 0.36787945 10.873127  ]
    """
    return walk(layered(complete(inner)), forward, inverse, name)


def walk(
    wrapped: optax.GradientTransformationExtraArgs,
    forward: Callable[[Any], Any],
    inverse: Callable[[Any], Any],
    name: str,
) -> optax.GradientTransformationExtraArgs:
    """:func:`reparameterize` of an optimizer that keeps stacked layers apart."""

    def init_fn(params: optax.Params) -> ReparameterizeState:
        latents = inverse(jax.tree.map(_widened_copy, params))
        state = wrapped.init(latents)
        if not jax.tree.leaves(params):
            state = _shown(state, latents)
        return ReparameterizeState(latents, state)

    def update_fn(
        updates: optax.Updates,
        state: ReparameterizeState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ReparameterizeState]:
        require_params(params, name)
        if not jax.tree.leaves(params):  # a part of a partition that has none
            return updates, state

        def to_weights(latents: Any) -> optax.Params:
            return jax.tree.map(
                lambda w, like: w.astype(like.dtype), forward(latents), params
            )

        _, pull_back = jax.vjp(forward, state.latents)
        wide = _widened(updates, params)
        (gradients,) = pull_back(wide)
        extra_args = _in_latents(extra_args, to_weights, pull_back, params)
        steps, inner_state = wrapped.update(
            gradients, state.inner, state.latents, **extra_args
        )
        latents = optax.apply_updates(state.latents, steps)

        def emit(target: jax.Array, w: jax.Array) -> jax.Array:
            return (target - w.astype(target.dtype)).astype(w.dtype)

        updates = jax.tree.map(emit, forward(latents), params)
        return updates, ReparameterizeState(latents, inner_state)

    return transformation(name, init_fn, update_fn)


def _shown(state: optax.OptState, latents: Any) -> optax.OptState:
    """The state with leaves of the latents in place of those that a mask left out.

    By a tree without leaves optax asks where a state holds trees like the parameters.
    ``inverse`` answers with a leaf for what is none of them, which stands for whatever
    is there. Left out by a mask of the inner optimizer it would be a node that stands
    for no other than itself.
    """

    def is_masked(node: Any) -> bool:
        return isinstance(node, optax.MaskedNode)

    layout: Any = jax.tree.structure(latents, is_leaf=is_masked)

    def is_latents(node: Any) -> bool:
        return bool(layout == jax.tree.structure(node, is_leaf=is_masked))

    def show(node: Any) -> Any:
        if not is_latents(node):
            return node
        return jax.tree.map(
            lambda own, kept: own if is_masked(kept) else kept,
            *(latents, node),
            is_leaf=is_masked,
        )

    return jax.tree.map(show, state, is_leaf=is_latents)


def _widened_copy(w: jax.Array) -> jax.Array:
    """The weight in float32 or wider, in a buffer of its own.

    A state that shares buffers with the parameters could not be donated with them.
    """
    dtype = compute_dtype(w.dtype)
    if isinstance(w, jax.ShapeDtypeStruct):  # an abstract init
        return jnp.zeros(w.shape, dtype)
    return jnp.array(w, dtype, copy=True)


def _widened(gradients: Any, params: Any) -> Any:
    """The gradients in the dtypes of ``forward``'s results; zeros in place of None."""

    def widen(g: jax.Array | None, w: jax.Array | None) -> jax.Array | None:
        if w is None:
            return None
        dtype = compute_dtype(w.dtype)
        return jnp.zeros_like(w, dtype) if g is None else g.astype(dtype)

    return jax.tree.map(widen, gradients, params, is_leaf=lambda x: x is None)


def _in_latents(
    extra_args: Mapping[str, Any],
    to_weights: Callable[[Any], Any],
    pull_back: Callable[[Any], Any],
    params: Any,
) -> dict[str, Any]:
    """The extra args as the inner optimizer is to see them."""
    translated = dict(extra_args)
    grad = extra_args.get("grad")
    given: Any = jax.tree.structure(grad)  # jax declares no equality for it
    if given == jax.tree.structure(params):
        (translated["grad"],) = pull_back(_widened(grad, params))

    def of_latents(fn: Callable[..., Any]) -> Callable[..., Any]:
        return lambda latents, *args, **kwargs: fn(to_weights(latents), *args, **kwargs)

    for name in ("value_fn", "obj_fn"):
        if callable(extra_args.get(name)):
            translated[name] = of_latents(extra_args[name])
    grad_fn = extra_args.get("grad_fn")
    if callable(grad_fn):

        def grad_of_latents(latents: Any, *args: Any, **kwargs: Any) -> Any:
            weights, pull_back_there = jax.vjp(to_weights, latents)
            return pull_back_there(grad_fn(weights, *args, **kwargs))[0]

        translated["grad_fn"] = grad_of_latents
    return translated
