"""A weight with its units as rows or as columns, and whether a kernel takes it."""

from collections.abc import Sequence

import jax
from jax import Array

from gnomon.kernels._layout import Layout, layout
from gnomon.kernels._rows import dtype_refusal, rows_refusal

# A strip of 128 columns is reduced in one piece.
MAX_COLUMN = 2**13


def normalize_axes(axis: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """The axes inside a unit, ascending and not negative."""
    given = (axis,) if isinstance(axis, int) else tuple(axis)
    axes = tuple(sorted(a + ndim if a < 0 else a for a in given))
    if not axes or len(set(axes)) < len(axes) or not 0 <= axes[0] <= axes[-1] < ndim:
        raise ValueError(f"axis={axis} does not name axes of a weight with {ndim}.")
    return axes


def folded(shape: tuple[int, ...], axes: tuple[int, ...]) -> Layout:
    """The layout in which each unit is one row or one column."""
    rows = axes[-1] == len(shape) - 1
    return layout(shape, axes, () if rows else tuple(range(axes[0])))


def scale_shape(layout: Layout) -> tuple[int, int, int]:
    """One number a unit, in line with the folded weight."""
    layers, rows, columns = layout.shape
    return (layers, 1, columns) if layout.axis == 1 else (layers, rows, 1)


def refusal(
    kernel: str, v: Array | jax.ShapeDtypeStruct, axes: tuple[int, ...]
) -> str | None:
    """Why a kernel cannot take `v`; None if it can."""
    if kernel == "gpu":
        return "there is no GPU kernel of this operation"
    seen = folded(v.shape, axes)
    if seen.moves_data:
        return f"the axes {axes} of a unit are not neighbours"
    if seen.axis == 2:
        return rows_refusal(kernel, v, seen.shape[2])
    if seen.shape[1] > MAX_COLUMN:
        return f"columns of {seen.shape[1]} are longer than {MAX_COLUMN}"
    return dtype_refusal(v)
