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


def as_arrays(tree: Any) -> Any:
    """The tree with arrays for leaves, each of a dtype of its own.

    A number of Python's, and what is computed of such numbers alone, has a *weak* dtype
    which gives way to that of others. A state made of it would change its dtype at the
    first update, so that no loop could carry it.

    Args:
      tree: arrays, numbers, tracers or ``jax.ShapeDtypeStruct``.

    Returns:
      Arrays; what is one already is returned itself.
    """

    def convert(leaf: Any) -> Any:
        if isinstance(leaf, jax.ShapeDtypeStruct):
            return leaf
        if isinstance(leaf, jax.Array) and not jax.typeof(leaf).weak_type:
            return leaf
        return jnp.asarray(leaf, jnp.result_type(leaf))

    return jax.tree.map(convert, tree)


def safe_divide(x: jax.Array, y: jax.Array) -> jax.Array:
    """``x / y``, and zero where ``y`` is zero.

    Example:
      >>> print(safe_divide(jnp.array([1.0, 0.0, 3.0]), jnp.array([2.0, 0.0, 0.0])))
      [0.5 0.  0. ]
    """
    return x / jnp.where(y == 0, jnp.inf, y)


def map_leaves(
    fn: Callable[..., tuple[Any, ...]],
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


def is_function(value: Any) -> bool:
    """Whether a value is a function, and not a tree of values that can be called.

    A module that is a tree of its parameters (``equinox.Module``, a
    ``flax.struct.dataclass`` with ``__call__``) can be called as well, and so can a
    mask or a base of its structure.

    Example:
      >>> is_function(len), is_function({"kernel": True})
      (True, False)
    """
    if not callable(value):
        return False
    is_partial = isinstance(value, jax.tree_util.Partial)
    return is_partial or jax.tree_util.all_leaves([value])


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
    if is_function(mask):
        layers = Stacks(params, stacked)
        mask = layers.call(mask, params) if layers.any else mask(params)
    return jax.tree.map(
        lambda keep, subtree: jax.tree.map(lambda _: bool(keep), subtree), mask, params
    )
