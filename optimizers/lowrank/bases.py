"""Subspaces of one side of a matrix: how they are found, and what is kept of them."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

Name: TypeAlias = Literal["svd", "dct", "rows"]
Side: TypeAlias = Literal["smaller", "larger", "inputs", "outputs"]


class Basis(NamedTuple):
    """A way to find an orthonormal basis.

    Attributes:
      find: ``find(x, rank)``, what is kept of the basis for matrices x, [layers, side,
        other]: the vectors themselves, or their numbers in a fixed basis of the side.
      vectors: ``vectors(kept, side)``, [layers, side, rank], in columns, of the dtype
        of ``kept``.
      numbered: whether numbers are kept, [layers, rank].
    """

    find: Callable[[jax.Array, int], jax.Array]
    vectors: Callable[[jax.Array, int], jax.Array]
    numbered: bool


def dct_matrix(n: int, dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
    r"""The orthonormal discrete cosine transform of type II, a frequency a row.

    .. math::
      C_{ij} = c_i \cos\frac{\pi i (2j + 1)}{2n}, \qquad
      c_0 = \sqrt{1/n}, \quad c_i = \sqrt{2/n}

    Args:
      n: the length of what it transforms, at most 32,767.
      dtype: that of the matrix.

    Example:
      >>> print(dct_matrix(2).round(3))
      [[ 0.707  0.707]
       [ 0.707 -0.707]]
    """
    frequency = jnp.arange(n, dtype=jnp.int32)[:, None]
    # Whole turns are left out while the numbers are whole.
    odd = 2 * jnp.arange(n, dtype=jnp.int32)[None] + 1
    phase = jnp.mod(frequency * odd, 4 * n)
    waves = jnp.cos(phase.astype(dtype) * jnp.asarray(jnp.pi / (2 * n), dtype))
    factor = jnp.where(frequency == 0, 1, jnp.sqrt(jnp.asarray(2, dtype)))
    return waves * factor.astype(dtype) / jnp.sqrt(jnp.asarray(n, dtype))


def _leading(x: jax.Array, rank: int) -> jax.Array:
    """Left singular vectors of the largest values, the largest entry of each positive.

    With free signs, moments that are kept would meet new ones at a refresh.
    """
    # A decomposition of what is not finite need not end.
    x = jnp.where(jnp.all(jnp.isfinite(x)), x, 0)
    vectors = jnp.linalg.svd(x, full_matrices=False)[0][..., :rank]
    at = jnp.argmax(jnp.abs(vectors), axis=-2, keepdims=True)
    largest = jnp.take_along_axis(vectors, at, axis=-2)
    return vectors * jnp.where(largest < 0, -1, 1).astype(x.dtype)


def _columns_of(matrix: Callable[[int, jax.typing.DTypeLike], jax.Array]) -> Basis:
    """Of a fixed basis, the rows of a matrix, those with the largest coordinates."""

    def find(x: jax.Array, rank: int) -> jax.Array:
        turned = jnp.matmul(matrix(x.shape[-2], x.dtype), x, precision="highest")
        size = jnp.sum(jnp.abs(turned), axis=-1)
        # In order, so that all of them are the fixed basis itself.
        return jnp.sort(jax.lax.top_k(size, rank)[1], axis=-1).astype(x.dtype)

    def vectors(kept: jax.Array, side: int) -> jax.Array:
        rows = matrix(side, kept.dtype)[kept.astype(jnp.int32)]
        return jnp.swapaxes(rows, -2, -1)

    return Basis(find, vectors, True)


BASES: Mapping[str, Basis] = {
    "svd": Basis(_leading, lambda kept, _: kept, False),
    "dct": _columns_of(dct_matrix),
    "rows": _columns_of(lambda n, dtype: jnp.eye(n, dtype=dtype)),
}


def is_outputs(side: Side, inputs: int, outputs: int) -> bool:
    """Whether the side that has the basis is that of the outputs.

    Args:
      side: which, by name; of a square matrix "smaller" and "larger" are the inputs.
      inputs: the length of one side.
      outputs: that of the other.

    Example:
      >>> is_outputs("smaller", 8, 4), is_outputs("smaller", 4, 4)
      (True, False)
    """
    return {
        "smaller": outputs < inputs,
        "larger": outputs > inputs,
        "inputs": False,
        "outputs": True,
    }[side]
