"""Optimizers that can move parameters themselves, in one go with their update.

An optax update returns updates, which are written to memory, read again and added to
the parameters. A kernel that does all of it at once needs one more function beside
``init`` and ``update``: ``apply(grads, state, params)``, which returns the new
parameters.
"""

from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from gnomon.parameters.checks import require_params
from gnomon.parameters.trees import as_arrays

__all__ = ["FusedTransformation", "apply_fused"]

ApplyFn = Callable[..., tuple[optax.Params, optax.OptState]]


# optax ships no types.
class FusedTransformation(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """An optax transform that also has ``apply``.

    It is a subclass, with an attribute and not a third field, because optax asks
    ``isinstance`` and unpacks two functions; to optax this is a transform like any
    other, whose ``apply`` a chain or a wrapper around it drops.

    Attributes:
      apply: ``apply(grads, state, params, **extra) -> (new params, new state)``, with
        the values and the state that ``update`` and ``optax.apply_updates`` give.
      apply_coded: the same on a state with
        :class:`gnomon.kernels.companding.Coded` for moments, or None; it reads
        ``coding`` too, keyword arguments of its kernel, and ``layers``, how many
        leading axes of each leaf run over layers that are coded each on its own.
    """

    apply: ApplyFn
    apply_coded: ApplyFn | None

    def __new__(
        cls,
        optimizer: optax.GradientTransformation,
        apply: ApplyFn,
        apply_coded: ApplyFn | None = None,
    ) -> Self:
        """Joins ``apply`` to an optimizer."""
        extended = optax.with_extra_args_support(optimizer)
        self: Self = super().__new__(cls, extended.init, extended.update)
        self.apply = apply
        self.apply_coded = apply_coded
        return self


def with_kernel(
    owner: str,
    optimizer: optax.GradientTransformation,
    implementations: Callable[[optax.OptState, optax.Params], Any],
    apply: ApplyFn,
    apply_coded: ApplyFn | None = None,
) -> FusedTransformation:
    """Joins a kernel's ``apply`` to an optimizer that XLA computes.

    Where XLA would be taken for every leaf, and nothing is to be rounded at random, one
    step is the optimizer's own update: XLA fuses that better than leaf by leaf.

    Args:
      owner: the optimizer's name, for messages.
      optimizer: the optimizer.
      implementations: ``implementations(state, params)`` is a tree of what would be
        taken for each leaf, ``"xla"`` or the name of a kernel.
      apply: as in :class:`FusedTransformation`, given ``shardings`` and
        ``rounding_key`` too.
      apply_coded: as in :class:`FusedTransformation`, default None.

    Returns:
      The optimizer with ``apply``, which raises a ``ValueError`` without ``params``.
    """

    def apply_fn(
        grads: optax.Updates,
        state: optax.OptState,
        params: optax.Params,
        *,
        shardings: Any = None,
        rounding_key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Params, optax.OptState]:
        require_params(params, owner)
        taken = jax.tree.leaves(implementations(state, params))
        if rounding_key is None and all(name == "xla" for name in taken):
            return apply_fused(optimizer, grads, state, params, **extra_args)
        how = dict(shardings=shardings, rounding_key=rounding_key)
        return apply(grads, state, params, **how, **extra_args)

    return FusedTransformation(optimizer, apply_fn, apply_coded)


def apply_fused(
    optimizer: optax.GradientTransformation,
    grads: optax.Updates,
    state: optax.OptState,
    params: optax.Params,
    **extra_args: Any,
) -> tuple[optax.Params, optax.OptState]:
    """One step of any optimizer, fused where it knows how.

    Args:
      optimizer: any optax transform.
      grads: the gradients.
      state: the optimizer's state.
      params: the parameters.
      **extra_args: what ``update`` may read; ignored by transforms that read none.

    Returns:
      The new parameters and the new state.

    Raises:
      ValueError: if ``params`` is None.

    Example:
      >>> import jax.numpy as jnp
      >>> optimizer = optax.sgd(0.1)
      >>> w = jnp.array([1.0, 2.0])
      >>> print(apply_fused(optimizer, w, optimizer.init(w), w)[0])
      [0.9 1.8]
    """
    require_params(params, "apply_fused")
    grads, params = as_arrays(grads), as_arrays(params)
    if isinstance(optimizer, FusedTransformation):
        return optimizer.apply(grads, state, params, **extra_args)
    optimizer = optax.with_extra_args_support(optimizer)
    updates, state = optimizer.update(grads, state, params, **extra_args)
    return add_updates(params, updates), state


def add_updates(params: optax.Params, updates: optax.Updates) -> optax.Params:
    """``optax.apply_updates``, a leaf without an update staying where it is."""
    updates = jax.tree.map(
        lambda u, w: jax.tree.map(jnp.zeros_like, w) if u is None else u,
        updates,
        params,
        is_leaf=lambda x: x is None,
    )
    return optax.apply_updates(params, updates)


def leaf_shardings(shardings: Any, params: optax.Params) -> Any:
    """Spreads shardings over the leaves of the parameters.

    Args:
      shardings: None, or a tree of ``jax.sharding.NamedSharding`` with the structure of
        ``params`` or a prefix of it.
      params: the parameters.

    Returns:
      A tree with one sharding, or None, in place of each leaf.
    """
    if shardings is None:
        return jax.tree.map(lambda _: None, params)
    return jax.tree.map(
        lambda sharding, subtree: jax.tree.map(lambda _: sharding, subtree),
        shardings,
        params,
    )


def leaf_keys(key: jax.Array | None, params: optax.Params) -> Any:
    """A key of its own for every leaf, or None for each when ``key`` is None."""
    leaves, treedef = jax.tree.flatten(params)
    keys = [
        None if key is None else jax.random.fold_in(key, i) for i in range(len(leaves))
    ]
    return jax.tree.unflatten(treedef, keys)


def kept(moved: Any, params: optax.Params) -> Any:
    """``moved``, with the parameter itself in place of a leaf without a gradient."""
    return jax.tree.map(
        lambda new, old: old if new is None else new,
        moved,
        params,
        is_leaf=lambda x: x is None,
    )
