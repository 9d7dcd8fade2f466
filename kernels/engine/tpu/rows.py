"""A norm over whole rows on a TPU, given its arithmetic on one block."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gnomon.kernels.engine.layout import LANES, tile
from gnomon.kernels.engine.sizes import Tpu


def map_rows(
    body: Callable[..., tuple[Array, ...]],
    rows: Sequence[Array],
    vectors: Sequence[Array],
    eps: Array,
    *,
    outputs: int,
    sums: int = 0,
    sizes: Tpu,
    interpret: Any = False,
) -> tuple[Array, ...]:
    """Calls `body` on blocks of whole rows, on a TPU.

    Args:
      body: takes a block of every matrix, every vector as [1, n], a scalar `eps` and
        the mean over a row, all in float32; returns `outputs` blocks, then `sums`
        blocks that are to be summed over all rows.
      rows: matrices [m, n] of one shape and dtype.
      vectors: of length n.
      eps: a scalar.
      outputs: how many matrices like `rows[0]` come back.
      sums: how many float32 vectors [n] come back.
      sizes: how much it takes at a time.
      interpret: as in `pallas_call`.

    Returns:
      The matrices, then the sums.
    """
    m, n = rows[0].shape
    # Narrow rows are padded to whole lanes in VMEM.
    block, _ = tile(m, -(-n // LANES) * LANES, 2, sizes.block)

    def kernel(eps_ref, *refs):
        count = len(rows) + len(vectors)
        inputs, results = refs[:count], refs[count:]
        values = [ref[...].astype(jnp.float32) for ref in inputs]
        mean = lambda x: jnp.mean(x, axis=-1, keepdims=True)  # noqa: E731
        answers = body(*values, eps_ref[0], mean)
        for ref, value in zip(results[:outputs], answers[:outputs], strict=True):
            ref[...] = value.astype(ref.dtype)
        if not sums:
            return
        step = pl.program_id(0)
        # The last block may reach past the last row, where memory holds anything.
        row = jax.lax.broadcasted_iota(jnp.int32, (block, n), 0) + step * block
        for ref, value in zip(results[outputs:], answers[outputs:], strict=True):
            total = jnp.sum(jnp.where(row < m, value, 0), axis=0, keepdims=True)

            @pl.when(step == 0)
            def _(ref=ref, total=total):
                ref[...] = total

            @pl.when(step > 0)
            def _(ref=ref, total=total):
                ref[...] += total

    matrix = pl.BlockSpec((block, n), lambda i: (i, 0))
    # The same block at every step stays in VMEM, which makes it an accumulator.
    vector = pl.BlockSpec((1, n), lambda i: (0, 0))
    results = pl.pallas_call(
        kernel,
        grid=(pl.cdiv(m, block),),
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            *[matrix] * len(rows),
            *[vector] * len(vectors),
        ],
        out_specs=[*[matrix] * outputs, *[vector] * sums],
        out_shape=[
            *[jax.ShapeDtypeStruct((m, n), rows[0].dtype)] * outputs,
            *[jax.ShapeDtypeStruct((1, n), jnp.float32)] * sums,
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary" if sums else "parallel",)
        ),
        cost_estimate=pl.CostEstimate(
            flops=8 * m * n * len(rows),
            transcendentals=m,
            bytes_accessed=(len(rows) + outputs) * m * n * rows[0].dtype.itemsize
            + 4 * n * (len(vectors) + sums),
        ),
        interpret=interpret,
    )(eps.astype(jnp.float32).reshape(1), *rows, *(v.reshape(1, n) for v in vectors))
    return (*results[:outputs], *(total[0] for total in results[outputs:]))
