"""Inner products of trees, summed in float32 or wider."""

from typing import Any

import jax
import jax.numpy as jnp

from gnomon.parameters.trees import compute_dtype, map_leaves


def scalar_dtype(tree: Any) -> Any:
    """The dtype for numbers about a whole tree: its widest leaf's, at least float32."""
    dtypes = [compute_dtype(leaf.dtype) for leaf in jax.tree.leaves(tree)]
    return max(dtypes, key=lambda d: d.itemsize, default=jnp.dtype(jnp.float32))


def leaf_products(tree: Any, other: Any) -> Any:
    """Inner products leaf by leaf; the sums are taken in float32 or wider.

    Args:
      tree: arrays; a None leaf stays None.
      other: arrays of the same shapes.

    Returns:
      A tree with the structure of ``tree`` and one scalar a leaf.
    """

    def product(x: jax.Array, y: jax.Array) -> tuple[jax.Array]:
        dtype = compute_dtype(x.dtype)
        # Not a vdot: flattening a sharded array would gather it.
        return (jnp.sum(x.astype(dtype) * y.astype(dtype)),)

    return map_leaves(product, tree, (), other)[0]


def total(scalars: Any, dtype: Any) -> jax.Array:
    """The sum of a tree of scalars in ``dtype``, 0 for a tree without leaves."""
    return sum(
        (x.astype(dtype) for x in jax.tree.leaves(scalars)), start=jnp.zeros([], dtype)
    )


def inner_product(tree: Any, other: Any) -> jax.Array:
    """The inner product of two trees, accumulated in float32 or wider.

    Args:
      tree: arrays; None leaves count as zero.
      other: arrays of the same shapes.

    Returns:
      A scalar in the widest dtype of ``tree``, at least float32.

    Example:
      >>> x = {"a": jnp.full((2, 3), 300.0, jnp.bfloat16), "b": jnp.ones(())}
      >>> print(inner_product(x, x))
      540001.0
    """
    return total(leaf_products(tree, other), scalar_dtype(tree))
