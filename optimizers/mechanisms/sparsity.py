"""Which numbers of weights are among the largest: masks by magnitude."""

from typing import Any

import jax
import jax.numpy as jnp

from gnomon.parameters.trees import map_leaves


def largest(tree: Any, sparsity: jax.typing.ArrayLike) -> Any:
    """Masks of the largest numbers of a whole tree, by one threshold.

    The threshold is exact: it is found bit by bit, from 31 counts of the numbers above
    it. Nothing is sorted, flattened or gathered, so that a sharded leaf stays where it
    is.

    Args:
      tree: arrays, ranked by magnitude in float32; a None leaf stays None.
      sparsity: of all numbers the share to leave out, in [0, 1]; rounded down to a
        whole number of them.

    Returns:
      A tree of bool arrays. Numbers as large as the smallest that is kept are kept too.

    Example:
      >>> print(largest({"a": jnp.array([3.0, -5.0]), "b": jnp.array([[1.0]])}, 0.4))
      {'a': Array([ True,  True], dtype=bool), 'b': Array([[False]], dtype=bool)}
    """

    # Floats that are not negative are in the order of their bits.
    def bits(x: jax.Array) -> tuple[jax.Array]:
        magnitude = jnp.abs(x.astype(jnp.float32))
        return (jax.lax.bitcast_convert_type(magnitude, jnp.int32),)

    (ranks,) = map_leaves(bits, tree, ())
    leaves = jax.tree.leaves(ranks)
    size = sum(leaf.size for leaf in leaves)
    # A third of three numbers is one, also where the third was rounded down.
    dropped = jnp.floor(jnp.asarray(sparsity, jnp.float32) * (size * (1 + 2e-7)))
    kept = size - jnp.clip(dropped, 0, size).astype(jnp.int32)

    def refine(bit: jax.Array, threshold: jax.Array) -> jax.Array:
        higher = threshold | (1 << (30 - bit))
        above = sum(
            (jnp.sum(leaf >= higher, dtype=jnp.int32) for leaf in leaves),
            start=jnp.zeros([], jnp.int32),
        )
        return jnp.where(above >= kept, higher, threshold)

    threshold = jax.lax.fori_loop(0, 31, refine, jnp.zeros([], jnp.int32))
    return map_leaves(lambda rank: (rank >= threshold,), ranks, ())[0]


def n_of_m(x: jax.Array, n: int, m: int, axis: int) -> jax.Array:
    """A mask of the ``n`` largest of every ``m`` neighbours along an axis.

    Args:
      x: an array; ``m`` divides the axis.
      n: how many are kept, exactly; of equals the first.
      m: the size of a group.
      axis: the axis of the groups.

    Returns:
      A bool array of the shape of ``x``.

    Example:
      >>> print(n_of_m(jnp.array([1.0, -4.0, 2.0, 2.0]), 2, 4, 0))
      [False  True  True False]
    """
    size = jnp.abs(jnp.moveaxis(x, axis, -1))
    groups = size.reshape(*size.shape[:-1], -1, m)
    one, other = groups[..., :, None], groups[..., None, :]
    first = jnp.arange(m)[None, :] < jnp.arange(m)[:, None]
    first = first.reshape((1,) * (groups.ndim - 1) + (m, m))
    ahead = jnp.sum((other > one) | ((other == one) & first), axis=-1)
    return jnp.moveaxis((ahead < n).reshape(size.shape), -1, axis)
