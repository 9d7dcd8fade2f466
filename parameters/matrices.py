"""A leaf as a stack of matrices, for methods and probes that look at whole matrices."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gnomon.parameters.units import Axes


class MatrixAxes(NamedTuple):
    """How the axes of a leaf divide when it is read as matrices."""

    batch: tuple[int, ...]  # layers: a matrix of its own at each index
    inputs: tuple[int, ...]  # the axes inside one unit
    outputs: tuple[int, ...]  # the axes that count units


def matrix_axes(axes: Axes, ndim: int) -> MatrixAxes | None:
    """How a leaf is read as matrices; None for one without units.

    Args:
      axes: of the leaf, as `units.resolve_axes` finds them.
      ndim: its rank.

    Example:
      >>> matrix_axes(Axes(reduce=(1,), stack=(0,)), 4)
      MatrixAxes(batch=(0,), inputs=(1,), outputs=(2, 3))
    """
    if not axes.reduce:
        return None
    taken = {*axes.reduce, *axes.stack}
    outputs = tuple(axis for axis in range(ndim) if axis not in taken)
    return MatrixAxes(axes.stack, axes.reduce, outputs)


def as_matrices(leaf: jax.Array, axes: Axes) -> jax.Array | None:
    """A leaf as [batch, inputs, outputs]: one matrix a layer.

    Args:
      leaf: the array.
      axes: its axes.

    Returns:
      The matrices, one for a leaf that is not stacked; None for a leaf without units.

    Example:
      >>> query = jnp.ones((2, 8, 4, 3))
      >>> as_matrices(query, Axes(reduce=(1,), stack=(0,))).shape
      (2, 8, 12)
    """
    parts = matrix_axes(axes, leaf.ndim)
    if parts is None:
        return None
    sizes = [math.prod(leaf.shape[axis] for axis in part) for part in parts]
    order = (*parts.batch, *parts.inputs, *parts.outputs)
    return jnp.transpose(leaf, order).reshape(sizes)
