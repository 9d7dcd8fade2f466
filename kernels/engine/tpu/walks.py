"""A step on layers larger than a block, walked once for every sweep and the update.

The arrays that several of these walks read are kept in VMEM from the first on where
they fit, and are read again where they do not.
"""

import functools
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gnomon.kernels.engine.layout import Layout
from gnomon.kernels.engine.program import Program
from gnomon.kernels.engine.tpu.blocks import Block, block_bytes, padded, within
from gnomon.kernels.engine.tpu.call import Call, launch, store
from gnomon.kernels.engine.tpu.update import sum_over


def resident(
    program: Program,
    arrays: Mapping[str, Any],
    where: Layout,
    block: Block,
    vmem: int,
) -> tuple[list[str], int, bool]:
    """What a walk keeps in VMEM.

    Args:
      program: the step, with one sweep or more.
      arrays: what it reads, arrays or structs.
      where: layout of the leaf on one device.
      block: rows and columns of a block.
      vmem: bytes that it may take.

    Returns:
      The arrays that it reads more than once, the bytes that it needs to keep them and
      all else, and whether it does.
    """
    _, rows, columns = where.shape
    again = [
        name for name in arrays if any(name in sweep.reads for sweep in program.sweeps)
    ]
    blocks = pl.cdiv(rows, block[0]) * pl.cdiv(columns, block[1])
    kept = sum(jnp.dtype(arrays[name].dtype).itemsize for name in again)
    needed = block_bytes(block, arrays, program.writes)
    needed += blocks * math.prod(padded(block)) * kept
    return again, needed, needed <= vmem


def walk(program: Program, call: Call, block: Block) -> dict[str, Array]:
    """Runs a program on layers.

    Args:
      program: the step, with one sweep or more.
      call: what it is given.
      block: rows and columns of a block.

    Returns:
      The arrays that the program writes.
    """
    layers, rows, columns = call.where.shape
    down, across = pl.cdiv(rows, block[0]), pl.cdiv(columns, block[1])
    last = len(program.sweeps)
    walks = {
        name: [p for p, sweep in enumerate(program.sweeps) if name in sweep.reads]
        + [last]
        for name in call.arrays
    }
    again, bytes_kept, keeps = resident(
        *(program, call.arrays, call.where, block, call.sizes.vmem)
    )
    if keeps:
        walks = {name: of[:1] for name, of in walks.items()}

    def body(inside):
        layer, walk, row, column = (pl.program_id(i) for i in range(4))
        sums, *copies = inside.scratch
        kept = dict(zip(again, copies, strict=False))
        at = row * across + column

        def load(names, now):
            blocks = {}
            for name in names:
                late = keeps and now != walks[name][0]
                raw = kept[name][at] if late else inside.arrays[name][...]
                if keeps and name in kept and not late:
                    kept[name][at] = raw
                blocks[name] = raw.astype(call.dtype)
            return blocks | inside.units

        start = 0
        for now, sweep in enumerate(program.sweeps):

            @pl.when(walk == now)
            def _(now=now, sweep=sweep, start=start):
                totals = tuple(sums[i] for i in range(start))
                terms = sweep.terms(load(sweep.reads, now), totals, inside.numbers)
                known = within(call.where.shape, block, (layer, row, column))
                for i, term in enumerate(terms, start):
                    term = term if known is None else jnp.where(known, term, 0)
                    part = sum_over(term, (0, 1))
                    sums[i] = jnp.where(at == 0, part, sums[i] + part)

            start += sweep.sums

        @pl.when(walk == last)
        def _():
            totals = tuple(sums[i] for i in range(start))
            moved = program.update(load(call.arrays, last), totals, inside.numbers)
            store(call, inside, moved, block, (layer, row, column))

    def spec(of):
        def index(layer, walk, row, column):
            reads = functools.reduce(jnp.logical_or, [walk == p for p in of])
            # Elsewhere rests on the block that is next, or was last: no copy is made.
            after = walk > of[-1]
            rest = [jnp.where(after, n - 1, 0) for n in (down, across)]
            return (
                layer,
                jnp.where(reads, row, rest[0]),
                jnp.where(reads, column, rest[1]),
            )

        return pl.BlockSpec((None, *block), index)

    return launch(
        call,
        body,
        block,
        grid=(layers, last + 1, down, across),
        place=lambda layer, walk, row, column: (layer, row, column),
        specs={name: spec(of) for name, of in walks.items()},
        outputs={
            name: (jax.ShapeDtypeStruct(x.shape, x.dtype), spec([last]))
            for name, x in call.arrays.items()
            if name in program.writes
        },
        semantics=("parallel", "arbitrary", "arbitrary", "arbitrary"),
        vmem=bytes_kept if keeps else block_bytes(block, call.arrays, program.writes),
        reads={name: len(of) for name, of in walks.items()},
        scratch=[
            pltpu.VMEM((sum(sweep.sums for sweep in program.sweeps), 1, 1), call.dtype),
            *(
                pltpu.VMEM((down * across, *block), call.arrays[name].dtype)
                for name in again
                if keeps
            ),
        ],
    )
