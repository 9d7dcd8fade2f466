"""The last reading of a leaf on a GPU (Hopper), and the only one where units fit.

The arrays that are written are references that the kernel reads and writes, so nothing
is copied where the caller donates them. A leaf is one run of numbers in memory: blocks
of eight numbers a thread, then blocks of one number a thread, then single numbers.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from gnomon.kernels.engine.gpu.rows import THREADS
from gnomon.kernels.engine.gpu.sums import load, vector
from gnomon.kernels.engine.program import Blocks, Program, Totals
from gnomon.kernels.engine.rounding import random_bits, stochastic_round
from gnomon.kernels.engine.sizes import Gpu

# Numbers of one array that a thread holds: 16 bytes in bfloat16 and twice that in
# float32, from each array before the first is used.
PER_THREAD = 8
# A row of this length takes 16 registers a thread in each array.
MAX_ROW = 2**11
# Units of at least a block each, so few that each can have blocks of its own.
FEW = 64


def fits_registers(columns: int) -> bool:
    """Whether a row of so many numbers lies in the registers of one block."""
    return columns <= MAX_ROW and columns % THREADS == 0


def update(
    program: Program,
    arrays: Blocks,
    units: Blocks,
    totals: Totals | None,
    numbers: Any,
    *,
    axis: int | None,
    sizes: Gpu,
    seeds: Array | None = None,
    index: Callable[..., Array] | None = None,
) -> dict[str, Array]:
    """Updates arrays of shape (layers, rows, columns) in place.

    Args:
      program: the step.
      arrays: the arrays of the leaf.
      units: one number a unit, with `axis` of size one.
      totals: all sums, likewise; None to add them up here, for which units are rows
        that :func:`fits_registers` takes.
      numbers: scalars of the step, a NamedTuple.
      axis: 1 where a unit is a column, 2 where it is a row, None without units.
      sizes: how many blocks there are to be.
      seeds: two int32 words for stochastic rounding of ``w``, or None.
      index: gives the index in the leaf of layers, rows and columns, for its seeds;
        None where arrays lie like the leaf.

    Returns:
      The arrays that the program writes.
    """
    shape = layers, rows, columns = arrays["w"].shape
    here = totals is None and bool(program.sweeps)
    few = axis == 2 and not here and layers * rows <= FEW and columns >= MAX_ROW // 2
    if few:
        layers, rows = layers * rows, 1
    elif axis != 1:
        # Rows of all layers follow each other; columns are cut at every layer.
        layers, rows = 1, layers * rows
    size = rows * columns
    length = columns if here else THREADS * PER_THREAD
    # A layer, and a lane that jax.vmap adds, must start where a vector may.
    neighbors = vector(length, size, *([columns] if axis == 1 else []))
    blocks, rest = divmod(size, length)
    pieces, singles = divmod(rest, THREADS)
    programs = max(min(blocks, sizes.blocks), pieces + singles)
    read_only = [name for name in arrays if name not in program.writes]
    small = [x.astype(jnp.float32) for x in (*units.values(), *(totals or ()))]
    scalars = jnp.stack([jnp.asarray(x).astype(jnp.float32) for x in numbers])
    if axis == 1:
        # Numbers of a block lie in columns that start anywhere and come round again.
        around = jnp.arange(columns + length) % columns
        small = [x[:, 0, around] for x in small]

    def body(scalars_ref, *operands):
        refs = list(operands)
        seeds_ref = None if seeds is None else refs.pop(0)
        named = dict(
            zip((*read_only, *program.writes), refs[len(small) :], strict=True)
        )
        step = type(numbers)(*(scalars_ref[i] for i in range(len(numbers))))
        layer = lax.axis_index("layer")
        base = layer * size
        program_id = lax.axis_index("program")

        def unit_value(ref, start, count, layout):
            if few:
                return ref[layer]
            if here:
                return ref[start // columns]
            if axis == 2:
                return _by_row(ref, start, count, columns, layout)
            first = layer * (columns + length) + lax.rem(start, columns)
            return (
                ref[first] if count == 1 else load(ref.at[pl.ds(first, count)], layout)
            )

        def move(start, count, neighbors):
            """Moves so many numbers of this layer; one is a scalar, not a vector."""
            layout = plgpu.Layout.WG_STRIDED((count,), vec_size=neighbors)
            where = base + start if count == 1 else pl.ds(base + start, count)
            values = {
                name: ref[where].astype(jnp.float32)
                if count == 1
                else load(ref.at[where], layout)
                for name, ref in named.items()
            }
            per_unit = [
                unit_value(ref, start, count, layout) for ref in refs[: len(small)]
            ]
            values |= dict(zip(units, per_unit, strict=False))
            sums = tuple(per_unit[len(units) :])
            if here:
                for sweep in program.sweeps:
                    sums += tuple(jnp.sum(x) for x in sweep.terms(values, sums, step))
            moved = program.update(values, sums, step)
            if seeds_ref is not None:
                place = functools.partial(_index, index, shape)
                moved["w"] = _round(
                    moved["w"], base + start, count, layout, seeds_ref, place
                )
            for name, x in moved.items():
                named[name][where] = x.astype(named[name].dtype)

        def block(i, carry):
            move((program_id + i * programs) * length, length, neighbors)
            return carry

        count = (blocks - program_id + programs - 1) // programs
        lax.fori_loop(0, count, block, 0)
        if pieces:
            pl.when(program_id < pieces)(
                lambda: move(blocks * length + program_id * THREADS, THREADS, 1)
            )
        if singles:
            pl.when((program_id >= pieces) & (program_id < pieces + singles))(
                lambda: move(size - singles + program_id - pieces, 1, 1)
            )

    words = [] if seeds is None else [seeds]
    flat = functools.partial(jnp.reshape, shape=-1)
    refs = [jax.new_ref(flat(arrays[name])) for name in program.writes]
    plgpu.kernel(
        body,
        grid=(layers, programs),
        grid_names=("layer", "program"),
        kernel_name=program.name,
    )(scalars, *words, *map(flat, small), *(flat(arrays[n]) for n in read_only), *refs)
    return {
        name: jax.freeze(ref).reshape(shape)
        for name, ref in zip(program.writes, refs, strict=True)
    }


def _by_row(ref: Any, start: Array, length: int, columns: int, layout: Any) -> Any:
    """The unit's value for each number of a block that may span several rows."""
    row = start // columns
    if length == 1:
        return ref[row]
    index = _iota(length, layout)
    value = plgpu.layout_cast(jnp.full((length,), ref[row]), layout)

    def next_row(i, value):
        here = jnp.minimum(row + i, ref.shape[0] - 1)
        return jnp.where(index >= (row + i) * columns - start, ref[here], value)

    spanned = (columns + length - 2) // columns
    return lax.fori_loop(1, 1 + spanned, next_row, value)


def _index(
    index: Callable[..., Array] | None, shape: Sequence[int], at: Array
) -> Array:
    """The index in the leaf of where numbers lie in the folded one."""
    if index is None:
        return at
    _, rows, columns = (jnp.int32(n) for n in shape)
    row = lax.div(at, columns)
    return index((lax.div(row, rows), lax.rem(row, rows), lax.rem(at, columns)))


def _round(
    w: Any,
    first: Any,
    length: int,
    layout: Any,
    seeds_ref: Any,
    place: Callable[[Array], Array],
) -> Any:
    """Stochastic rounding of so many numbers, with bits from where they lie."""
    one, two = (seeds_ref[i].astype(jnp.uint32) for i in range(2))
    if length > 1:
        index = place(first + _iota(length, layout)).astype(jnp.uint32)
        return stochastic_round(w, random_bits(one, two, index))
    # The bits of a scalar cannot be had, so every thread rounds the same number.
    layout = plgpu.Layout.WG_STRIDED((THREADS,), vec_size=1)
    spread = plgpu.layout_cast(jnp.full((THREADS,), w), layout)
    index = jnp.full((THREADS,), place(first).astype(jnp.uint32))
    bits = random_bits(one, two, plgpu.layout_cast(index, layout))
    return jnp.max(stochastic_round(spread, bits).astype(jnp.float32))


def _iota(length: int, layout: Any) -> Array:
    return plgpu.broadcasted_iota(jnp.int32, (length,), 0, layout=layout)
