"""A step on blocks that hold units whole, or whose sums are known: each read once."""

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from gnomon.kernels.engine.program import Program
from gnomon.kernels.engine.tpu.blocks import Block, block_bytes
from gnomon.kernels.engine.tpu.call import Call, launch, store


def sum_over(x: Array, axes: tuple[int, ...]) -> Array:
    """The sum over axes of a block, which keep size one."""
    for axis in axes:
        x = jnp.sum(x, axis=axis, keepdims=True)
    return x


def update(
    program: Program, call: Call, block: Block, axes: tuple[int, ...] = ()
) -> dict[str, Array]:
    """Runs a program block by block.

    Args:
      program: the step.
      call: what it is given, all sums among them where `axes` is empty.
      block: rows and columns of a block.
      axes: the axes of a block over which it finds the sums itself.

    Returns:
      The arrays that the program writes.
    """
    layers, rows, columns = call.where.shape

    def body(inside):
        blocks = {
            name: ref[...].astype(call.dtype) for name, ref in inside.arrays.items()
        }
        blocks |= inside.units
        totals = inside.totals
        for sweep in program.sweeps if axes else ():
            terms = sweep.terms(blocks, totals, inside.numbers)
            totals += tuple(sum_over(term, axes) for term in terms)
        moved = program.update(blocks, totals, inside.numbers)
        store(call, inside, moved, block, [pl.program_id(i) for i in range(3)])

    def place(layer, row, column):
        return layer, row, column

    whole = pl.BlockSpec((None, *block), place)
    return launch(
        call,
        body,
        block,
        grid=(layers, pl.cdiv(rows, block[0]), pl.cdiv(columns, block[1])),
        place=place,
        outputs={
            name: (jax.ShapeDtypeStruct(x.shape, x.dtype), whole)
            for name, x in call.arrays.items()
            if name in program.writes
        },
        semantics=("parallel",) * 3,
        vmem=block_bytes(block, call.arrays, program.writes),
    )
