"""A step on units that are columns, in one kernel, on a GPU (Hopper).

A strip of columns of every array lies in the shared memory of a block, which adds up,
updates and writes back what it has read once.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from gnomon.kernels.engine.gpu.sums import load
from gnomon.kernels.engine.program import Blocks, Program
from gnomon.kernels.engine.rounding import random_bits, stochastic_round

# The tile that a block computes with, and the most rows that one copy may have.
TILE_ROWS, TILE_COLUMNS, MOST_ROWS = 64, 8, 256
# Bytes of a row of a strip that a memory transaction fetches anyway.
SECTOR = 32
# Shared memory that a block may take, and that lets three work on a multiprocessor.
SHARED_BYTES, EASY_BYTES = 200 * 2**10, 72 * 2**10


def strip(rows: int, columns: int, itemsizes: Sequence[int]) -> int | None:
    """How many columns of arrays of so many bytes a block holds; None if it cannot.

    Example:
      >>> [strip(rows, 768, (4, 4, 4, 4)) for rows in (128, 768, 3072)]
      [32, 8, None]
      >>> [strip(rows, 768, (2, 2)) for rows in (512, 2048, 8192)]
      [32, 16, None]
    """
    if rows % TILE_ROWS:
        return None
    held = {
        width: rows * width * sum(itemsizes)
        for width in (TILE_COLUMNS, 2 * TILE_COLUMNS, 4 * TILE_COLUMNS)
        if columns % width == 0 and rows * width * sum(itemsizes) <= SHARED_BYTES
    }
    wide = [width for width in held if width * min(itemsizes) >= SECTOR]
    easy = [width for width in wide if held[width] <= EASY_BYTES]
    return max(easy, default=min(wide, default=min(held, default=None)))


def step_columns(
    program: Program,
    arrays: Blocks,
    units: Blocks,
    numbers: Any,
    *,
    index: Callable[..., Array],
    seeds: Array | None = None,
) -> dict[str, Array]:
    """Runs a program on arrays of shape (layers, rows, columns), in place.

    Args:
      program: the step.
      arrays: the arrays of the leaf, of which a block holds a :func:`strip`.
      units: one number a column, of shape (layers, 1, columns).
      numbers: scalars of the step, a NamedTuple.
      index: gives the index in the leaf of a layer, rows and columns, for its seeds.
      seeds: two int32 words for stochastic rounding of ``w``, or None.

    Returns:
      The arrays that the program writes.
    """
    layers, rows, columns = arrays["w"].shape
    read_only = [name for name in arrays if name not in program.writes]
    names = (*read_only, *program.writes)
    dtypes = [arrays[name].dtype for name in names]
    width = strip(rows, columns, [dtype.itemsize for dtype in dtypes])
    if width is None:
        raise ValueError(f"no block holds a strip of {rows} x {columns}")
    part_rows = math.gcd(rows, MOST_ROWS)
    tile = (TILE_ROWS, width)
    layout = plgpu.Layout.WGMMA
    small = [x.astype(jnp.float32).reshape(layers, columns) for x in units.values()]
    scalars = jnp.stack([jnp.asarray(x).astype(jnp.float32) for x in numbers])

    def body(scalars_ref, *operands):
        refs = list(operands)
        seeds_ref = None if seeds is None else refs.pop(0)
        strips, arrived = refs[-2:]
        small_refs = refs[: len(small)]
        whole = dict(zip(names, refs[len(small) : -2], strict=True))
        held = dict(zip(names, strips, strict=True))
        step = type(numbers)(*(scalars_ref[i] for i in range(len(numbers))))
        layer, left = lax.axis_index("layer"), lax.axis_index("strip") * width
        across = pl.ds(left, width)

        @pl.loop(0, rows // part_rows)
        def _(i):
            part = pl.ds(i * part_rows, part_rows)
            for name in names:
                plgpu.copy_gmem_to_smem(
                    whole[name].at[layer, part, across], held[name].at[part], arrived
                )

        plgpu.barrier_wait(arrived)

        def along(unit):
            return lax.broadcast_in_dim(unit, tile, (1,))

        per_unit = [
            along(load(ref.at[layer, across], layout.reduce(0))) for ref in small_refs
        ]
        named_units = dict(zip(units, per_unit, strict=True))

        def blocks(of, i):
            part = pl.ds(i * TILE_ROWS, TILE_ROWS)
            values = {name: load(held[name].at[part], layout) for name in of}
            return values | named_units

        totals: tuple[Array, ...] = ()
        for sweep in program.sweeps:

            def add(i, sums, sweep=sweep, totals=totals):
                terms = sweep.terms(blocks(sweep.reads, i), totals, step)
                return tuple(a + b for a, b in zip(sums, terms, strict=True))

            zero = plgpu.layout_cast(jnp.zeros(tile, jnp.float32), layout)
            sums = lax.fori_loop(0, rows // TILE_ROWS, add, (zero,) * sweep.sums)
            totals += tuple(along(jnp.sum(x, axis=0)) for x in sums)

        @pl.loop(0, rows // TILE_ROWS)
        def _(i):
            moved = program.update(blocks(names, i), totals, step)
            if seeds_ref is not None:
                down, right = (
                    plgpu.broadcasted_iota(jnp.int32, tile, axis, layout=layout) + start
                    for axis, start in enumerate((i * TILE_ROWS, left))
                )
                place = index((layer, down, right)).astype(jnp.uint32)
                one, two = (seeds_ref[k].astype(jnp.uint32) for k in range(2))
                moved["w"] = stochastic_round(moved["w"], random_bits(one, two, place))
            for name, x in moved.items():
                ref = held[name].at[pl.ds(i * TILE_ROWS, TILE_ROWS)]
                ref[...] = x.astype(ref.dtype)

        plgpu.commit_smem()

        @pl.loop(0, rows // part_rows)
        def _(i):
            part = pl.ds(i * part_rows, part_rows)
            for name in program.writes:
                plgpu.copy_smem_to_gmem(
                    held[name].at[part], whole[name].at[layer, part, across]
                )

        plgpu.wait_smem_to_gmem(0)

    words = [] if seeds is None else [seeds]
    refs = [jax.new_ref(arrays[name]) for name in program.writes]
    plgpu.kernel(
        body,
        scratch_types=[
            [plgpu.SMEM((rows, width), dtype) for dtype in dtypes],
            plgpu.Barrier(num_arrivals=rows // part_rows * len(names)),
        ],
        grid=(layers, columns // width),
        grid_names=("layer", "strip"),
        kernel_name=program.name,
    )(scalars, *words, *small, *(arrays[name] for name in read_only), *refs)
    return {
        name: jax.freeze(ref) for name, ref in zip(program.writes, refs, strict=True)
    }
