"""A weight with its units as rows or as columns, and whether a kernel takes it."""

from collections.abc import Sequence

import jax
from jax import Array

from gnomon.kernels.engine.layout import Layout, layout, tpu_order
from gnomon.kernels.engine.rows import dtype_refusal, rows_refusal

# On a TPU a strip of 128 columns is reduced in one piece.
MAX_COLUMN = 2**13
# On a GPU a block reduces a strip of so many columns, in tiles of so many rows. The
# backward pass holds two of them in shared memory, of which a block may have 227 KiB.
STRIP, TILE_ROWS = 8, 64
MAX_STRIP_BYTES = 200 * 2**10


def normalize_axes(axis: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """The axes inside a unit, ascending and not negative."""
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    axes = tuple(sorted(a + ndim if a < 0 else a for a in given))
    if not axes or len(set(axes)) < len(axes) or not 0 <= axes[0] <= axes[-1] < ndim:
        raise ValueError(f"axis={axis} does not name axes of a weight with {ndim}.")
    return axes


def folded(kernel: str, shape: tuple[int, ...], axes: tuple[int, ...]) -> Layout:
    """The layout in which each unit is one row or one column."""
    stored = tpu_order(shape) if kernel == "tpu" else tuple(range(len(shape)))
    if stored[-1] in axes:
        return layout(shape, axes, (), stored)
    first = min(stored.index(axis) for axis in axes)
    return layout(shape, axes, sorted(stored[:first]), stored)


def refusal(
    kernel: str, v: Array | jax.ShapeDtypeStruct, axes: tuple[int, ...]
) -> str | None:
    """Why a kernel cannot take `v`; None if it can."""
    seen = folded(kernel, v.shape, axes)
    if seen.axis == 2:
        return rows_refusal(kernel, v, seen.shape[2])
    rows, columns = seen.shape[1:]
    longest = MAX_COLUMN
    if kernel == "gpu":
        longest = MAX_STRIP_BYTES // (2 * STRIP * v.dtype.itemsize)
        if rows % TILE_ROWS or columns % STRIP:
            return f"{rows} x {columns} does not divide by {TILE_ROWS} x {STRIP}"
    if rows > longest:
        return f"columns of {rows} are longer than {longest}"
    return dtype_refusal(v)
