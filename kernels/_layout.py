"""Leaves of any rank as ``(layers, rows, columns)``, and blocks that fit a chip.

A unit is then a row or a column: whichever axes form a unit, they end up as the last
axis or the one before it, for all of Flax's parameters without moving a number.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax


class Layout(NamedTuple):
    """How a leaf folds into three axes."""

    order: tuple[int, ...]  # the leaf's axes, in folded order
    shape: tuple[int, int, int]  # layers, rows, columns
    axis: int | None  # the folded axis inside one unit: 1, 2, or None without units

    @property
    def moves_data(self) -> bool:
        """Whether folding transposes, which costs a pass, and not only reshapes."""
        return self.order != tuple(sorted(self.order))


def layout(
    shape: Sequence[int], reduce: Sequence[int] = (), stack: Sequence[int] = ()
) -> Layout:
    """The layout of one leaf.

    Args:
      shape: the leaf's shape.
      reduce: axes inside one unit, non-negative and ascending; () without units.
      stack: axes over independent layers, non-negative and ascending.

    Returns:
      The layout.

    Example:
      >>> layout((3, 3, 64, 128), reduce=(0, 1, 2))  # a convolution of 128 units
      Layout(order=(0, 1, 2, 3), shape=(1, 576, 128), axis=1)
      >>> layout((12, 50, 64), reduce=(2,), stack=(0,))
      Layout(order=(0, 1, 2), shape=(12, 50, 64), axis=2)
    """
    ndim = len(shape)
    if not reduce:
        rows = math.prod(shape[:-1]) if ndim > 1 else 1
        return Layout(tuple(range(ndim)), (1, rows, shape[-1] if ndim else 1), None)
    kept = tuple(a for a in range(ndim) if a not in reduce and a not in stack)
    reduce, stack = tuple(reduce), tuple(stack)
    sizes = {part: math.prod(shape[a] for a in part) for part in (stack, reduce, kept)}
    columns = stack + reduce + kept
    if columns == tuple(range(ndim)) and kept:
        return Layout(columns, (sizes[stack], sizes[reduce], sizes[kept]), 1)
    rows_first = stack + kept + reduce
    return Layout(rows_first, (sizes[stack], sizes[kept], sizes[reduce]), 2)


def fold(x: jax.Array, layout: Layout) -> jax.Array:
    """``x`` in three axes; one with size-1 axes in place of a unit's stays so."""
    x = x.transpose(layout.order) if layout.moves_data else x
    layers, rows, columns = layout.shape
    if x.size == layers * rows * columns:
        return x.reshape(layout.shape)
    return x.reshape((layers, 1, columns) if layout.axis == 1 else (layers, rows, 1))


def unfold(x: jax.Array, layout: Layout, shape: Sequence[int]) -> jax.Array:
    """Undoes :func:`fold` for a full array of the given shape."""
    if not layout.moves_data:
        return x.reshape(shape)
    moved = x.reshape([shape[axis] for axis in layout.order])
    back = sorted(range(len(layout.order)), key=layout.order.__getitem__)
    return moved.transpose(back)


# Rows and columns of the smallest tile of any dtype of 16 bits or more.
SUBLANES, LANES = 16, 128


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
