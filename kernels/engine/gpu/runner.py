"""A step that needs sums first, by GPU kernels that read as little as they can.

Rows that fit the registers of a block are read once, sums and update together, and so
are columns that fit its shared memory. For all other units there is a kernel for every
sweep before the one that updates, which reads nothing where no unit needs its sums, as
it is told on the device; what they read again comes from the L2 cache where a leaf fits
that. Units that are spread over devices, or rows that the threads of a block
do not divide, are summed by XLA.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jax.sharding import NamedSharding

from gnomon.kernels.engine.gpu.columns import step_columns, strip
from gnomon.kernels.engine.gpu.sums import takes, unit_sums
from gnomon.kernels.engine.gpu.update import fits_registers, update
from gnomon.kernels.engine.layout import Layout, flat_index, fold, layout, unfold
from gnomon.kernels.engine.program import (
    Blocks,
    Program,
    Sweep,
    Totals,
    known_or,
    totals_of,
)
from gnomon.kernels.engine.rounding import rounding_seeds
from gnomon.kernels.engine.shards import on_shards, spreads
from gnomon.kernels.engine.sizes import Gpu


def step(
    program: Program,
    arrays: Blocks,
    units: Blocks,
    numbers: Any,
    *,
    reduce: Sequence[int],
    stack: Sequence[int] = (),
    key: Array | None = None,
    sharding: NamedSharding | None = None,
    sizes: Gpu,
) -> dict[str, Array]:
    """Runs a program on one leaf.

    Args:
      program: the step.
      arrays: arrays of the leaf's shape, ``w`` among them.
      units: arrays with one number a unit, axes in ``reduce`` of size one.
      numbers: scalars of the step, a NamedTuple.
      reduce: the axes inside one unit, non-negative and ascending; () without units.
      stack: the axes over layers.
      key: a key that rounds ``w`` stochastically if it is bfloat16.
      sharding: how the arrays lie on a mesh.
      sizes: how much the kernels take at a time.

    Returns:
      The arrays that the program writes, in the dtypes they came in.
    """
    w = arrays["w"]
    seeds = rounding_seeds(key, w.dtype)
    totals = None
    if spreads(sharding, w.ndim, reduce):
        totals = totals_of(program.sweeps, arrays, units, numbers, reduce, jnp.float32)

    def on_device(arrays, per_unit, numbers, seeds):
        units, totals = per_unit
        shape = arrays["w"].shape
        where = layout(shape, reduce, stack)
        if program.sweeps and not reduce:
            # Every number is a unit.
            where = Layout(where.order, (1, arrays["w"].size, 1), 2)
        fits = on_chip(where, [x.dtype.itemsize for x in arrays.values()])
        if totals is None and not (fits or takes(where.shape[2])):
            totals = totals_of(
                program.sweeps, arrays, units, numbers, reduce, jnp.float32
            )
        index = functools.partial(flat_index, where, shape)
        arrays = {name: fold(x, where) for name, x in arrays.items()}
        units = {name: fold(x, where) for name, x in units.items()}
        if totals is not None:
            totals = tuple(fold(x, where) for x in totals)
        elif program.sweeps and where.axis == 1 and fits:
            moved = step_columns(
                program, arrays, units, numbers, seeds=seeds, index=index
            )
            return {name: unfold(x, where, shape) for name, x in moved.items()}
        elif not fits:
            totals = folded_sums(
                *(program.sweeps, arrays, units, numbers, where, sizes)
            )
        moved = update(
            program,
            arrays,
            units,
            totals,
            numbers,
            axis=where.axis,
            sizes=sizes,
            seeds=seeds,
            index=index if where.moves_data else None,
        )
        return {name: unfold(x, where, shape) for name, x in moved.items()}

    return on_shards(
        on_device,
        dict(arrays),
        (dict(units), totals),
        numbers,
        seeds,
        reduce=reduce,
        sharding=sharding,
    )


def folded_sums(
    sweeps: Sequence[Sweep],
    arrays: Blocks,
    units: Blocks,
    numbers: Any,
    where: Layout,
    sizes: Gpu,
) -> Totals:
    """The sums of sweeps over a folded leaf, by a kernel for each.

    It is launched in any case and told on the device whether it has to read, because a
    condition would wait for the host.
    """
    totals: Totals = ()
    for sweep in sweeps:
        call = (sweep, arrays, units, totals, numbers, where.axis or 2)
        if sweep.known is None:
            totals += tuple(unit_sums(*call, sizes=sizes))
            continue
        values, holds = sweep.known(units, totals, numbers)
        added = unit_sums(*call, sizes=sizes, needed=~jnp.all(holds))
        totals += known_or(values, holds, added)
    return totals


def sums(
    sweeps: Sequence[Sweep],
    arrays: Blocks,
    units: Blocks,
    numbers: Any,
    *,
    reduce: Sequence[int],
    stack: Sequence[int] = (),
    sharding: NamedSharding | None = None,
    sizes: Gpu,
) -> Totals:
    """The sums of sweeps over the units of a leaf, see :func:`step`."""
    shape = arrays["w"].shape
    where = layout(shape, reduce, stack)
    if sharding is not None or where.axis is None or not takes(where.shape[2]):
        return totals_of(sweeps, arrays, units, numbers, reduce, jnp.float32)
    per_unit = [1 if axis in reduce else n for axis, n in enumerate(shape)]
    arrays, units = (
        {name: fold(x, where) for name, x in of.items()} for of in (arrays, units)
    )
    totals = folded_sums(sweeps, arrays, units, numbers, where, sizes)
    return tuple(unfold(x, where, per_unit) for x in totals)


def holds(
    program: Program,
    arrays: Mapping[str, Any],
    *,
    reduce: Sequence[int],
    stack: Sequence[int] = (),
    sharding: NamedSharding | None = None,
    sizes: Gpu,
) -> bool:
    """Whether :func:`step` finds all sums of a leaf on the chip, see there."""
    shape = arrays["w"].shape
    if spreads(sharding, len(shape), reduce):
        return False
    local = shape if sharding is None else sharding.shard_shape(shape)
    itemsizes = [jnp.dtype(x.dtype).itemsize for x in arrays.values()]
    return on_chip(layout(local, reduce, stack), itemsizes)


def power(x: Array, exponent: Array) -> Array:
    """``x ** exponent`` for what is not negative, made of what Mosaic GPU has."""
    # Of a logarithm that is not infinite, 0 times which would not be 0.
    return lax.cond(
        exponent == 1,
        lambda: x,
        lambda: jnp.exp2(exponent * jnp.maximum(jnp.log2(x), -1e30)),
    )


def on_chip(where: Layout, itemsizes: Sequence[int]) -> bool:
    """Whether a block holds whole units of arrays of so many bytes a number."""
    _, rows, columns = where.shape
    if where.axis == 1:
        return strip(rows, columns, itemsizes) is not None
    return where.axis == 2 and fits_registers(columns)
