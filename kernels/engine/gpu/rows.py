"""A norm over whole rows on a GPU, given its arithmetic on one row."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental.pallas import mosaic_gpu as plgpu

from gnomon.kernels.engine.sizes import Gpu

THREADS = 128  # a warpgroup, which shares one row


def map_rows(
    body: Callable[..., tuple[Array, ...]],
    rows: Sequence[Array],
    vectors: Sequence[Array],
    eps: Array,
    *,
    outputs: int,
    sums: int = 0,
    sizes: Gpu,
    interpret: Any = None,
) -> tuple[Array, ...]:
    """Calls `body` on one row after the other, in many blocks at a time.

    As `tpu.rows.map_rows`, but that `body` sees one row [n] and the mean is a scalar.
    """
    m, n = rows[0].shape
    blocks = min(m, sizes.blocks)
    # As many neighbours a thread as fill 16 bytes, of those that divide the row.
    vector = next(v for v in (8, 4, 2, 1) if n % (THREADS * v) == 0)
    layout = plgpu.Layout.WG_STRIDED((n,), vec_size=vector)

    read: Any = plgpu.load  # jax 0.10 declares it with one more argument

    def load(ref):
        return read(ref, layout=layout, optimized=False).astype(jnp.float32)

    def mean(x):
        return jnp.sum(x) / n

    def kernel(eps_ref, *refs):
        inputs, results = refs[: len(rows)], refs[len(rows) + len(vectors) :]
        shared = [load(ref) for ref in refs[len(rows) : len(rows) + len(vectors)]]
        number = eps_ref[0]
        block = jax.lax.axis_index("block")

        def step(i, totals):
            row = block + i * blocks
            values = [load(ref.at[row]) for ref in inputs]
            answers = body(*values, *shared, number, mean)
            for ref, value in zip(results[:outputs], answers[:outputs], strict=True):
                ref[row] = value.astype(ref.dtype)
            pairs = zip(totals, answers[outputs:], strict=True)
            return tuple(total + value for total, value in pairs)

        zero = plgpu.layout_cast(jnp.zeros((n,), jnp.float32), layout)
        count = (m - block + blocks - 1) // blocks
        totals = jax.lax.fori_loop(0, count, step, (zero,) * sums)
        for ref, total in zip(results[outputs:], totals, strict=True):
            ref[block] = total

    results = plgpu.kernel(
        kernel,
        out_type=[
            *[jax.ShapeDtypeStruct((m, n), rows[0].dtype)] * outputs,
            *[jax.ShapeDtypeStruct((blocks, n), jnp.float32)] * sums,
        ],
        grid=(blocks,),
        grid_names=("block",),
        interpret=interpret,
    )(eps.astype(jnp.float32).reshape(1), *rows, *vectors)
    # Every block summed its own rows; there is no order among blocks to add up in.
    partial = (jnp.sum(total, axis=0) for total in results[outputs:])
    return (*results[:outputs], *partial)
