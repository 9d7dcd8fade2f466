"""A leaf as a stack of matrices, for methods and probes that look at whole matrices."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType

from gnomon.parameters.units import Axes


class MatrixAxes(NamedTuple):
    """How the axes of a leaf divide when it is read as matrices."""

    batch: tuple[int, ...]  # layers: a matrix of its own at each index
    inputs: tuple[int, ...]  # the axes inside one unit
    outputs: tuple[int, ...]  # the axes that count units


def matrix_axes(axes: Axes, ndim: int, vectors: bool = False) -> MatrixAxes | None:
    """How a leaf is read as matrices; None for one without units.

    Args:
      axes: of the leaf, as `units.resolve_axes` finds them.
      ndim: its rank.
      vectors: whether a leaf without units is read too, as the matrix of one input, the
        constant 1. Default False.

    Example:
      >>> matrix_axes(Axes(reduce=(1,), stack=(0,)), 4)
      MatrixAxes(batch=(0,), inputs=(1,), outputs=(2, 3))
    """
    if not axes.reduce and not vectors:
        return None
    taken = {*axes.reduce, *axes.stack}
    outputs = tuple(axis for axis in range(ndim) if axis not in taken)
    return MatrixAxes(axes.stack, axes.reduce, outputs)


def as_matrices(leaf: jax.Array, axes: Axes, vectors: bool = False) -> jax.Array | None:
    """A leaf as [batch, inputs, outputs]: one matrix a layer.

    Args:
      leaf: the array.
      axes: its axes.
      vectors: as of :func:`matrix_axes`.

    Returns:
      The matrices, one for a leaf that is not stacked; None for a leaf without units.

    Example:
      >>> query = jnp.ones((2, 8, 4, 3))
      >>> as_matrices(query, Axes(reduce=(1,), stack=(0,))).shape
      (2, 8, 12)
    """
    parts = matrix_axes(axes, leaf.ndim, vectors)
    if parts is None:
        return None
    sizes = [math.prod(leaf.shape[axis] for axis in part) for part in parts]
    order = (*parts.batch, *parts.inputs, *parts.outputs)
    return jnp.transpose(leaf, order).reshape(sizes)


def matrices_in(leaf: jax.Array, axes: Axes, vectors: bool = False) -> jax.Array:
    """The matrices of a leaf that is known to have them.

    Args:
      leaf: the array.
      axes: its axes.
      vectors: as of :func:`matrix_axes`.

    Returns:
      As :func:`as_matrices`.
    """
    matrices = as_matrices(leaf, axes, vectors)
    assert matrices is not None
    return matrices


def of_matrices(matrices: jax.Array, axes: Axes, shape: tuple[int, ...]) -> jax.Array:
    """The inverse of :func:`as_matrices`.

    Args:
      matrices: [batch, inputs, outputs].
      axes: of the leaf.
      shape: its shape.

    Returns:
      The leaf.

    Example:
      >>> query, axes = jnp.ones((2, 8, 4, 3)), Axes(reduce=(1,), stack=(0,))
      >>> of_matrices(as_matrices(query, axes), axes, query.shape).shape
      (2, 8, 4, 3)
    """
    parts = matrix_axes(axes, len(shape), vectors=True)
    assert parts is not None
    order = (*parts.batch, *parts.inputs, *parts.outputs)
    back = [order.index(axis) for axis in range(len(shape))]
    return jnp.transpose(matrices.reshape([shape[a] for a in order]), back)


def unsharded(fn: Callable[..., Any], like: Any, *arrays: Any) -> Any:
    """``fn(*arrays)``, for functions of whole matrices.

    A product contracts axes over which a leaf may be sharded. Where shardings are part
    of the types, ``fn`` is left to the compiler to partition, as it is elsewhere.

    Args:
      fn: a function of trees of arrays; what it closes over is to have no sharding.
      like: a tree like its result, of arrays whose shardings that is to have.
      *arrays: what it is called with.

    Returns:
      Its result.

    Example:
      >>> x = jnp.ones((2, 3))
      >>> unsharded(lambda x: x @ x.T @ x, x, x).shape
      (2, 3)
    """

    def is_explicit(x: jax.Array) -> bool:
        return AxisType.Explicit in jax.typeof(x).sharding.mesh.axis_types

    if not any(map(is_explicit, jax.tree.leaves(arrays))):
        return fn(*arrays)
    shardings = jax.tree.map(lambda x: jax.typeof(x).sharding, like)
    return jax.sharding.auto_axes(fn, out_sharding=shardings)(*arrays)
