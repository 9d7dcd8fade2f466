"""What every transform of this package does with its trees, in one place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.parameters.checks import require_leaves
from gnomon.parameters.trees import as_arrays


def transformation(
    name: str,
    init: Callable[[Any], Any],
    update: Callable[..., tuple[Any, Any]],
    *,
    complex_leaves: bool = False,
) -> optax.GradientTransformationExtraArgs:
    """Makes an optax transform of an ``init`` and an ``update``.

    Parameters that the transform would compute wrongly are refused by name where it is
    initialized. Leaves that are numbers, not arrays, become arrays. No two leaves of
    the first state share a buffer, with each other or with the parameters: both can be
    donated to the first step.

    Args:
      name: its name, for messages.
      init: ``init(params)``.
      update: ``update(updates, state, params=None, **extra_args)``.
      complex_leaves: whether it is right for complex parameters.

    Returns:
      The transform.

    Example:
      >>> halve = transformation(
      ...     "halve", lambda params: (),
      ...     lambda updates, state, params=None: (updates / 2, state))
      >>> halve.update(1.0, halve.init(1.0))[0]
      Array(0.5, dtype=float32)
      >>> halve.init({"phase": 1j})
      Traceback (most recent call last):
        ...
      ValueError: halve: the parameter 'phase' is of dtype complex64, and it takes real
      ones alone: wrap it in optax.contrib.split_real_and_imaginary.
    """

    def init_fn(params: optax.Params) -> optax.OptState:
        require_leaves(name, params, complex_leaves=complex_leaves)
        params = as_arrays(params)
        return _unshared(init(params), params)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        if extra_args.get("grad") is not None:
            extra_args["grad"] = as_arrays(extra_args["grad"])
        return update(as_arrays(updates), state, as_arrays(params), **extra_args)

    return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def _unshared(state: Any, params: Any) -> Any:
    seen = {id(leaf) for leaf in jax.tree.leaves(params)}

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
            return leaf
        if id(leaf) in seen:
            leaf = jnp.array(leaf, copy=True)
        seen.add(id(leaf))
        return leaf

    return jax.tree.map(own, state)
