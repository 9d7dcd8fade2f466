"""A step that may need sums first, by TPU kernels that read as little as they can.

Where units fit a block, sums and update are made of what one block holds. A layer that
is larger is walked block by block. Other units that no block holds, or that are spread
over devices, are summed by XLA first, which reads each array once for all sums; so are
layers that VMEM does not hold, of a step with sums that it seldom needs.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from jax import Array
from jax.sharding import NamedSharding

from gnomon.kernels.engine.layout import (
    Layout,
    fold,
    layer_layout,
    layout,
    tpu_order,
    unfold,
)
from gnomon.kernels.engine.program import (
    Blocks,
    Program,
    Sweep,
    Totals,
    power,
    totals_of,
)
from gnomon.kernels.engine.rounding import rounding_seeds
from gnomon.kernels.engine.shards import on_shards, spreads
from gnomon.kernels.engine.sizes import Tpu
from gnomon.kernels.engine.tpu.blocks import block_bytes, cut, padded
from gnomon.kernels.engine.tpu.call import Call
from gnomon.kernels.engine.tpu.update import update
from gnomon.kernels.engine.tpu.walks import resident, walk
from gnomon.parameters.trees import compute_dtype

__all__ = ("holds", "power", "step", "sums")

# Numbers of a layer that is a row or a column, of which a block holds some.
SHORT = 2**12


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
    sizes: Tpu,
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
    local = w.shape if sharding is None else sharding.shard_shape(w.shape)
    where = folded(local, reduce, stack)
    known = None
    if program.sweeps and (
        spreads(sharding, w.ndim, reduce)
        or not holds_units(arrays, program.writes, where, sizes)
        or rereads(program, arrays, where, sizes)
    ):
        dtype = compute_dtype(w.dtype)
        known = totals_of(program.sweeps, arrays, units, numbers, reduce, dtype)

    def on_device(arrays, per_unit, numbers, seeds):
        units, known = per_unit
        call = Call(
            program.name,
            {name: fold(x, where) for name, x in arrays.items()},
            {name: fold(x, where) for name, x in units.items()},
            tuple(fold(x, where) for x in known or ()),
            numbers,
            seeds,
            where,
            local,
            sizes,
        )
        if known is not None or not program.sweeps:
            moved = update(program, call, cut(where, sizes.block))
        elif where.axis is not None:
            moved = update(
                *(program, call, cut(where, sizes.block, where.axis)), (where.axis - 1,)
            )
        elif in_one_block(where, sizes):
            moved = update(program, call, where.shape[1:], (0, 1))
        else:
            moved = walk(program, call, cut(where, sizes.block))
        return {name: unfold(x, where, local) for name, x in moved.items()}

    return on_shards(
        on_device,
        dict(arrays),
        (dict(units), known),
        numbers,
        seeds,
        reduce=reduce,
        sharding=sharding,
    )


def sums(
    sweeps: Sequence[Sweep],
    arrays: Blocks,
    units: Blocks,
    numbers: Any,
    *,
    reduce: Sequence[int],
    stack: Sequence[int] = (),
    sharding: NamedSharding | None = None,
    sizes: Tpu,
) -> Totals:
    """The sums of sweeps over the units of a leaf, see :func:`step`.

    XLA makes them of one fusion, and may make it part of what computes the gradient.
    """
    dtype = compute_dtype(arrays["w"].dtype)
    return totals_of(sweeps, arrays, units, numbers, reduce, dtype)


def holds(
    program: Program,
    arrays: Mapping[str, Any],
    *,
    reduce: Sequence[int],
    stack: Sequence[int] = (),
    sharding: NamedSharding | None = None,
    sizes: Tpu,
) -> bool:
    """Whether :func:`step` finds all sums of a leaf on the chip, see there.

    For a program with sums in every step, of arrays or structs.
    """
    shape = arrays["w"].shape
    if spreads(sharding, len(shape), reduce):
        return False
    local = shape if sharding is None else sharding.shard_shape(shape)
    return holds_units(arrays, program.writes, folded(local, reduce, stack), sizes)


def folded(
    shape: Sequence[int], reduce: Sequence[int], stack: Sequence[int] = ()
) -> Layout:
    """The layout of a leaf as it is stored; a unit that is a layer keeps two axes.

    Short layers of one axis, in a row or column of them, are rows or columns instead:
    a grid of as many steps, each on a tile that is mostly padding, is slow.
    """
    order = tpu_order(shape)
    kept, inside, layers = (
        [n for axis, n in enumerate(shape) if n != 1 and where(axis)]
        for where in (
            lambda axis: axis not in (*reduce, *stack),
            lambda axis: axis in reduce,
            lambda axis: axis in stack,
        )
    )
    short = len(layers) == 1 and len(inside) <= 1 and math.prod(inside) <= SHORT
    if kept or (reduce and short):
        return layout(shape, reduce, stack, order)
    return layer_layout(shape, stack, order)


def holds_units(
    arrays: Mapping[str, Any], writes: Sequence[str], where: Layout, sizes: Tpu
) -> bool:
    """Whether a kernel that moves these arrays has the sums of a unit at hand.

    Args:
      arrays: what it reads, arrays or structs.
      writes: names of those that it writes.
      where: layout of the leaf on one device.
      sizes: how much the kernel takes at a time.

    Returns:
      True where blocks hold units whole, and for layers, which are walked.
    """
    if where.axis is None:
        return True
    block = cut(where, sizes.block, where.axis)
    return block_bytes(block, arrays, writes) <= sizes.vmem


def in_one_block(where: Layout, sizes: Tpu) -> bool:
    """Whether a block holds a whole layer."""
    return math.prod(padded(where.shape[1:])) <= sizes.block


def rereads(
    program: Program, arrays: Mapping[str, Any], where: Layout, sizes: Tpu
) -> bool:
    """Whether a walk reads a leaf again for sums that few steps need.

    What a walk reads is fixed before it starts; XLA's sums are made where needed.

    Args:
      program: the step.
      arrays: what it reads, arrays or structs.
      where: layout of the leaf on one device.
      sizes: how much the kernel takes at a time.

    Returns:
      True where it does; sums by XLA are then the fewer bytes.
    """
    if where.axis is not None or in_one_block(where, sizes):
        return False
    if all(sweep.known is None for sweep in program.sweeps):
        return False
    block = cut(where, sizes.block)
    return not resident(program, arrays, where, block, sizes.vmem)[2]
