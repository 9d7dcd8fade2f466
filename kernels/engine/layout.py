"""Leaves of any rank as ``(layers, rows, columns)``, and blocks that fit a chip.

A unit is then a row or a column: whichever axes form a unit, they end up as the last
axis or the one before it, for nearly all parameters without moving a number.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Rows and columns of the smallest tile of any dtype of 16 bits or more.
SUBLANES, LANES = 16, 128


class Layout(NamedTuple):
    """How a leaf folds into three axes."""

    order: tuple[int, ...]  # the leaf's axes, in folded order
    shape: tuple[int, int, int]  # layers, rows, columns
    axis: int | None  # the folded axis inside one unit: 1, 2, or None without units

    @property
    def moves_data(self) -> bool:
        """Whether folding transposes, which may cost a pass, and not only reshapes."""
        return self.order != tuple(sorted(self.order))

    @property
    def units(self) -> tuple[int, int, int]:
        """The folded shape of one number a unit."""
        layers, rows, columns = self.shape
        shapes = {1: (layers, 1, columns), 2: (layers, rows, 1), None: (layers, 1, 1)}
        return shapes[self.axis]


def tpu_order(shape: Sequence[int]) -> tuple[int, ...]:
    """The axes of an array as XLA stores them on a TPU, slowest first.

    The last two are padded to tiles of 8 x 128, of 1, 2 or 4 rows where there are no
    more, and XLA takes the two that pad least, row-major among equals. It gives a
    kernel arrays row-major, so one that is transposed to this order first is not
    copied. The rule is what programs compiled for v5e and v6e show of their arguments;
    where it does not hold, there is a copy and no other harm.

    Args:
      shape: shape of the array.

    Returns:
      The order; axes of size one, which lie anywhere, come first.

    Example:
      >>> tpu_order((2048, 1024)), tpu_order((2048, 1000)), tpu_order((768, 12, 64))
      ((0, 1), (1, 0), (1, 2, 0))
    """
    axes = [axis for axis, size in enumerate(shape) if size != 1]
    ones = [axis for axis, size in enumerate(shape) if size == 1]
    pairs = [(a, b) for b in reversed(axes) for a in reversed(axes) if a != b]

    def padded(pair: tuple[int, int]) -> int:
        rows, columns = (shape[axis] for axis in pair)
        tile = min(8, 2 ** max(0, rows - 1).bit_length())
        others = math.prod(n for axis, n in enumerate(shape) if axis not in pair)
        return -(-rows // tile) * tile * -(-columns // LANES) * LANES * others

    last = min(pairs, key=padded) if pairs else ()
    return (*ones, *(axis for axis in axes if axis not in last), *last)


def layout(
    shape: Sequence[int],
    reduce: Sequence[int] = (),
    stack: Sequence[int] = (),
    stored: Sequence[int] | None = None,
) -> Layout:
    """The layout of one leaf.

    Args:
      shape: the leaf's shape.
      reduce: axes inside one unit, non-negative and ascending; () without units.
      stack: axes over independent layers, non-negative and ascending.
      stored: the axes as they are stored, slowest first; default row-major.

    Returns:
      The layout: that of memory where units are rows or columns of it, or else one that
      transposes.

    Example:
      >>> layout((3, 3, 64, 128), reduce=(0, 1, 2))  # a convolution of 128 units
      Layout(order=(0, 1, 2, 3), shape=(1, 576, 128), axis=1)
      >>> layout((12, 50, 64), reduce=(2,), stack=(0,))
      Layout(order=(0, 1, 2), shape=(12, 50, 64), axis=2)
      >>> layout((2048, 1000), reduce=(0,), stored=(1, 0))
      Layout(order=(1, 0), shape=(1, 1000, 2048), axis=2)
      >>> layout((5000, 1), reduce=(0,))
      Layout(order=(1, 0), shape=(1, 1, 5000), axis=2)
    """
    memory = tuple(range(len(shape)) if stored is None else stored)
    if not reduce:
        return layer_layout(shape, (), memory)
    if math.prod(shape[axis] for axis in reduce) == 1:
        # Units of one number, side by side: a row of one would be padded to 128.
        return Layout(memory, (1, 1, math.prod(shape)), 1)
    if all(n == 1 for a, n in enumerate(shape) if a not in (*stack, *reduce)):
        stack = ()  # a layer is one unit
    outer = tuple(axis for axis in memory if axis in stack)
    inside = tuple(axis for axis in memory if axis in reduce)
    kept = tuple(axis for axis in memory if axis not in (*stack, *reduce))
    sizes = [math.prod(shape[a] for a in part) for part in (outer, inside, kept)]
    columns = outer + inside + kept

    def long(order: Sequence[int]) -> list[int]:
        return [axis for axis in order if shape[axis] != 1]

    # A unit that is all there is lies in one row, and not in a column of width one.
    if sizes[2] != 1 and long(columns) == long(memory):
        return Layout(columns, (sizes[0], sizes[1], sizes[2]), 1)
    return Layout(outer + kept + inside, (sizes[0], sizes[2], sizes[1]), 2)


def layer_layout(
    shape: Sequence[int], stack: Sequence[int] = (), stored: Sequence[int] | None = None
) -> Layout:
    """The layout of a leaf that is used by the layer: no unit is a row or a column.

    Args:
      shape: the leaf's shape.
      stack: axes over independent layers.
      stored: the axes as they are stored, slowest first; default row-major.

    Returns:
      The layout.

    Example:
      >>> layer_layout((12, 50, 64), stack=(0,))
      Layout(order=(0, 1, 2), shape=(12, 50, 64), axis=None)
    """
    memory = tuple(range(len(shape)) if stored is None else stored)
    outer = tuple(axis for axis in memory if axis in stack)
    inside = tuple(axis for axis in memory if axis not in stack)
    *rows, columns = [shape[axis] for axis in inside] or [1]
    layers = math.prod(shape[axis] for axis in outer)
    return Layout(outer + inside, (layers, math.prod(rows), columns), None)


def fold(x: jax.Array, layout: Layout) -> jax.Array:
    """``x`` in three axes; one with size-1 axes in place of a unit's stays so."""
    x = x.transpose(layout.order) if layout.moves_data else x
    whole = x.size == math.prod(layout.shape)
    return x.reshape(layout.shape if whole else layout.units)


def unfold(x: jax.Array, layout: Layout, shape: Sequence[int]) -> jax.Array:
    """Undoes :func:`fold`, for an array of the given shape."""
    if not layout.moves_data:
        return x.reshape(shape)
    moved = x.reshape([shape[axis] for axis in layout.order])
    back = sorted(range(len(layout.order)), key=layout.order.__getitem__)
    return moved.transpose(back)


def flat_index(
    layout: Layout, shape: Sequence[int], place: Sequence[jax.Array]
) -> jax.Array:
    """Where the numbers of a folded leaf lie in the leaf itself, row-major.

    Args:
      layout: of the leaf.
      shape: the leaf's shape.
      place: int32 layer, row and column, of shapes that broadcast.

    Returns:
      The index of each of them; of what lies outside the leaf anything.
    """
    axes = [axis for axis in layout.order if shape[axis] != 1]
    index = jnp.int32(0)
    for at, extent in zip(place, layout.shape, strict=True):
        # Size and stride of the axes that this one runs over, neighbors joined.
        runs: list[tuple[int, int]] = []
        while extent > 1:
            axis = axes.pop(0)
            size, stride = shape[axis], math.prod(shape[axis + 1 :])
            extent //= size
            if runs and runs[-1][1] == size * stride:
                size *= runs.pop()[0]
            runs.append((size, stride))
        while runs:
            size, stride = runs.pop()
            index += (lax.rem(at, jnp.int32(size)) if runs else at) * stride
            at = lax.div(at, jnp.int32(size)) if runs else at
    return index


def tile(rows: int, columns: int, axis: int | None, elements: int) -> tuple[int, int]:
    """A block of about ``elements`` numbers that TPU tiling allows.

    Args:
      rows: rows of the array.
      columns: columns of the array.
      axis: 1 to keep columns whole, 2 to keep rows whole, None to cut both.
      elements: how many numbers to aim at; whole units may need more.

    Returns:
      Rows and columns of a block, each the whole extent or a multiple of the tile.

    Example:
      >>> tile(50257, 768, None, 2**17), tile(3072, 768, 1, 2**17)
      ((160, 768), (3072, 128))
    """
    block_rows = rows if axis == 1 else min(rows, SUBLANES)
    if axis == 2:
        block_columns = columns
    else:
        block_columns = _cut(columns, elements // block_rows, LANES)
    if axis != 1:
        block_rows = _cut(rows, elements // block_columns, SUBLANES)
    return block_rows, block_columns


def _cut(extent: int, limit: int, multiple: int) -> int:
    return (
        extent if extent <= limit else min(extent, max(limit // multiple, 1) * multiple)
    )
