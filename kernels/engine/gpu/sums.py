"""Sums over the units of a leaf on a GPU, each array read once.

XLA takes two kernels for columns, and writes between them as much as it reads.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from gnomon.kernels.engine.gpu.rows import THREADS
from gnomon.kernels.engine.program import Blocks, Sweep, Totals
from gnomon.kernels.engine.sizes import Gpu

# Rows of a strip that are loaded together.
TOGETHER = 2
# Numbers of a row that a block loads together.
MAX_PART = 2**11


def takes(columns: int) -> bool:
    """Whether rows of so many numbers divide by the threads of a block."""
    return columns % THREADS == 0


def load(ref: Any, layout: Any) -> Array:
    """An array's part as float32, spread over the threads as `layout` says."""
    read: Any = plgpu.load  # jax 0.10 declares it with one more argument
    return read(ref, layout=layout, optimized=False).astype(jnp.float32)


def vector(length: int, *starts: int, most: int = 8) -> int:
    """The most neighbors a thread reads at once, where blocks start at multiples."""
    return next(
        v
        for v in (most, 4, 2, 1)
        if length % (THREADS * v) == 0 and all(start % v == 0 for start in starts)
    )


def unit_sums(
    sweep: Sweep,
    arrays: Blocks,
    units: Blocks,
    totals: Totals,
    numbers: Any,
    axis: int,
    *,
    sizes: Gpu,
    needed: Array | None = None,
) -> list[Array]:
    """The sums of one sweep over units that are rows or columns.

    Args:
      sweep: what to add up; all that it does with a block is arithmetic.
      arrays: those that it reads, of shape (layers, rows, columns), with columns
        that the kernel :func:`takes`.
      units: one number a unit, with `axis` of size one.
      totals: sums of earlier sweeps, likewise.
      numbers: scalars of the step, a NamedTuple.
      axis: 1 where a unit is a column, 2 where it is a row.
      sizes: how many blocks there are to be.
      needed: a bool without which nothing is read and the sums are zero.

    Returns:
      For each term an array like those of ``units``.
    """
    needed = jnp.asarray(True) if needed is None else needed
    flag = needed.astype(jnp.int32).reshape(1)
    scalars = jnp.stack([jnp.asarray(x).astype(jnp.float32) for x in numbers])
    inputs = [arrays[name] for name in sweep.reads]
    small = [x.astype(jnp.float32) for x in (*units.values(), *totals)]

    def terms(values, per_unit, scalars_ref):
        blocks = dict(zip(sweep.reads, values, strict=True))
        named = dict(zip(units, per_unit, strict=False))
        step = type(numbers)(*(scalars_ref[i] for i in range(len(numbers))))
        return sweep.terms(blocks | named, tuple(per_unit[len(units) :]), step)

    layers, rows, columns = inputs[0].shape
    m = layers * rows
    if axis == 2 and m >= sizes.blocks // 2:
        shared = (terms, [x.reshape(m, columns) for x in inputs])
        sums = _sum_rows(
            *shared, [x.reshape(m) for x in small], flag, scalars, sweep.sums, sizes
        )
        return [x.reshape(layers, rows, 1) for x in sums]
    if axis == 1:
        sums = _sum_strips(
            *(terms, inputs, small, flag, scalars, sweep.sums, sizes), True
        )
        return [x.reshape(layers, 1, columns) for x in sums]
    # Too few rows to give every block one: strips of a row are columns to add up.
    width = THREADS * vector(columns)
    sums = _sum_strips(
        terms,
        [x.reshape(m, columns // width, width) for x in inputs],
        [x.reshape(m) for x in small],
        *(flag, scalars, sweep.sums, sizes, False),
    )
    return [x.reshape(layers, rows, 1) for x in sums]


def _sum_rows(terms, arrays, small, flag, scalars, count, sizes):
    m, columns = arrays[0].shape
    blocks = min(m, sizes.blocks)
    # The longest part that a row divides into.
    part = next(
        n for n in range(MAX_PART, 0, -THREADS) if columns % n == 0 and n <= columns
    )
    layout = plgpu.Layout.WG_STRIDED((part,), vec_size=vector(part))

    def kernel(flag_ref, scalars_ref, *refs):
        inputs, sums = refs[: len(arrays)], refs[len(refs) - count :]
        small_refs = refs[len(arrays) : len(refs) - count]
        block = lax.axis_index("block")

        def row_sums(i, carry):
            row = block + i * blocks
            per_unit = [ref[row] for ref in small_refs]

            def add(j, totals):
                here = pl.ds(j * part, part)
                values = [load(ref.at[row, here], layout) for ref in inputs]
                new = terms(values, per_unit, scalars_ref)
                return tuple(t + x for t, x in zip(totals, new, strict=True))

            zero = plgpu.layout_cast(jnp.zeros((part,), jnp.float32), layout)
            parts = columns // part * flag_ref[0]
            totals = lax.fori_loop(0, parts, add, (zero,) * count)
            for ref, total in zip(sums, totals, strict=True):
                ref[row] = jnp.sum(total)
            return carry

        lax.fori_loop(0, (m - block + blocks - 1) // blocks, row_sums, 0)

    return plgpu.kernel(
        kernel,
        out_type=[jax.ShapeDtypeStruct((m,), jnp.float32)] * count,
        grid=(blocks,),
        grid_names=("block",),
        kernel_name="unit_sums",
    )(flag, scalars, *arrays, *small)


def _sum_strips(terms, arrays, small, flag, scalars, count, sizes, by_column):
    """Sums for each column of a layer, or each layer, as ``small`` has them.

    Every block adds up its own rows of a strip of columns; there is no order among
    blocks to add those up in.
    """
    layers, rows, columns = arrays[0].shape
    # As many neighbors a thread as fill 16 bytes of the first array.
    neighbors = vector(columns, most=16 // arrays[0].dtype.itemsize)
    width = THREADS * neighbors
    strips = columns // width
    blocks = max(1, min(sizes.blocks // (layers * strips), rows // sizes.fewest))
    chunk = -(-rows // blocks)
    blocks = -(-rows // chunk)
    layout = plgpu.Layout.WG_STRIDED((width,), vec_size=neighbors)

    def kernel(flag_ref, scalars_ref, *refs):
        inputs, sums = refs[: len(arrays)], refs[len(refs) - count :]
        small_refs = refs[len(arrays) : len(refs) - count]
        layer, block = lax.axis_index("layer"), lax.axis_index("block")
        strip = pl.ds(lax.axis_index("strip") * width, width)
        first = block * chunk
        here = jnp.minimum(chunk, rows - first) * flag_ref[0]
        if by_column:
            per_unit = [load(ref.at[layer, 0, strip], layout) for ref in small_refs]
        else:
            per_unit = [ref[layer] for ref in small_refs]

        def add(row, totals, together):
            # All loads before the first sum, so that they wait for memory together.
            values = [
                [load(ref.at[layer, row + i, strip], layout) for ref in inputs]
                for i in range(together)
            ]
            for value in values:
                new = terms(value, per_unit, scalars_ref)
                totals = tuple(t + x for t, x in zip(totals, new, strict=True))
            return totals

        def add_together(i, totals):
            return add(first + i * TOGETHER, totals, TOGETHER)

        def add_one(i, totals):
            return add(first + i, totals, 1)

        zero = plgpu.layout_cast(jnp.zeros((width,), jnp.float32), layout)
        steps = here // TOGETHER
        totals = lax.fori_loop(0, steps, add_together, (zero,) * count)
        totals = lax.fori_loop(steps * TOGETHER, here, add_one, totals)
        for ref, total in zip(sums, totals, strict=True):
            if by_column:
                ref[layer, block, strip] = total
            else:
                ref[layer, block, lax.axis_index("strip")] = jnp.sum(total)

    extent = columns if by_column else strips
    parts = plgpu.kernel(
        kernel,
        out_type=[jax.ShapeDtypeStruct((layers, blocks, extent), jnp.float32)] * count,
        grid=(layers, blocks, strips),
        grid_names=("layer", "block", "strip"),
        kernel_name="unit_sums",
    )(flag, scalars, *arrays, *small)
    return [jnp.sum(x, axis=1 if by_column else (1, 2)) for x in parts]
