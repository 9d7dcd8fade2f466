"""Averages of products of gradients, a side of each matrix: Shampoo's statistics."""

from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp

from gnomon.parameters.matrices import as_matrices
from gnomon.parameters.units import Axes

Sides: TypeAlias = Literal["both", "smaller", "inputs", "outputs"]
INPUTS, OUTPUTS = 0, 1


def sides_of(sides: Sides, shape: tuple[int, ...], max_size: int) -> list[int]:
    """The sides of a matrix that have a Gram matrix.

    Args:
      sides: which, by name.
      shape: [..., inputs, outputs].
      max_size: the longest side that has one.

    Returns:
      ``INPUTS``, ``OUTPUTS``, both or none; none for an empty matrix.

    Example:
      >>> sides_of("smaller", (1, 8, 4), 100), sides_of("both", (1, 8, 4), 6)
      ([1], [1])
    """
    inputs, outputs = shape[-2:]
    if not (inputs and outputs):
        return []
    named = {
        "both": [INPUTS, OUTPUTS],
        "smaller": [INPUTS if inputs <= outputs else OUTPUTS],
        "inputs": [INPUTS],
        "outputs": [OUTPUTS],
    }
    return [i for i in named[sides] if (inputs, outputs)[i] <= max_size]


def gram(matrix: jax.Array, side: int) -> jax.Array:
    """The Gram matrix of a side, [batch, side, side].

    Args:
      matrix: [batch, inputs, outputs].
      side: ``INPUTS`` for G G^T, ``OUTPUTS`` for G^T G.
    """
    indices = "bij,bkj->bik" if side == INPUTS else "bij,bik->bjk"
    return jnp.einsum(indices, matrix, matrix, precision="highest")


def grams_at_first(
    zeros: jax.Array, axes: Axes, sides: Sides, max_size: int
) -> tuple[jax.Array, jax.Array]:
    """Zeros in the shape of the Gram matrices of both sides, one where none is kept.

    Args:
      zeros: zeros in the shape of the leaf.
      axes: of the leaf.
      sides: which sides have one.
      max_size: the longest side that has one.
    """
    shape = jax.eval_shape(lambda x: as_matrices(x, axes), zeros).shape
    used = sides_of(sides, shape, max_size)
    lengths = [shape[1 + i] if i in used else 1 for i in (INPUTS, OUTPUTS)]
    inputs, outputs = (jnp.zeros((shape[0], n, n), zeros.dtype) for n in lengths)
    return inputs, outputs
