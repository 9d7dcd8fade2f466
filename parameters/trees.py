"""Maps over parameter trees that the transforms share."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.parameters.stacks import Stacks

# The name of what leaf rules compute, which keep stacked layers apart by themselves.
BY_LAYER = "by_layer"


def compute_dtype(dtype: jax.typing.DTypeLike) -> Any:
    """The dtype to compute in: float32, or the leaf's own when that is wider."""
    return jnp.dtype(dtype) if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def map_leaves(
    fn: Callable[..., tuple],
    updates: optax.Updates,
    states: Sequence[Any],
    *others: Any,
) -> tuple[optax.Updates, *tuple[Any, ...]]:
    """Maps a leaf rule with state over trees.

    A None update means "this leaf has no gradient": it stays None and its state
    stays as it was. ``MaskedNode`` holds no leaves and passes through.

    Args:
      fn: ``fn(update, *state_leaves, *other_leaves)``, returning the new update
        and the new state leaves as one tuple.
      updates: the tree that sets the structure.
      states: trees with the structure of ``updates``, also returned.
      *others: further trees, of which ``updates`` may be a prefix.

    Returns:
      The new updates and the new state trees, in that order.
    """
    leaves: list[Any]
    treedef: Any  # jax declares no methods for it
    leaves, treedef = jax.tree.flatten(updates, is_leaf=lambda x: x is None)
    columns = [treedef.flatten_up_to(tree) for tree in (*states, *others)]
    kept = len(states)
    rows = []
    with jax.named_scope(BY_LAYER):
        for leaf, *rest in zip(leaves, *columns, strict=True):
            rows.append((None, *rest[:kept]) if leaf is None else fn(leaf, *rest))
    if not rows:
        return (updates, *states)
    return tuple(
        jax.tree.unflatten(treedef, column) for column in zip(*rows, strict=True)
    )


def broadcast_mask(mask: Any, params: optax.Params, stacked: str | None = None) -> Any:
    """Spreads a mask over the leaves of the parameters.

    Args:
      mask: None (every leaf), a tree of bools with the structure of ``params`` or a
        prefix of it, or a function from parameters to such a tree. A function sees
        one layer of a leaf that stacks several, so that a rank means what it means of
        layers in a list.
      params: the parameters.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      A tree with the structure of ``params`` and one bool a leaf.
    """
    if mask is None:
        mask = True
    if callable(mask):
        layers = Stacks(params, stacked)
        mask = layers.call(mask, params) if layers.any else mask(params)
    return jax.tree.map(
        lambda keep, subtree: jax.tree.map(lambda _: bool(keep), subtree), mask, params
    )
