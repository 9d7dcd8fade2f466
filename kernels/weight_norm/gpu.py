"""Weight normalization on a GPU (Hopper): two array passes forward, three backward.

A unit that is a row lies in the registers of a block of threads. Units that are columns
are loaded into shared memory side by side, a strip a block, and summed there.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from gnomon.kernels.engine.gpu.rows import THREADS
from gnomon.kernels.engine.rows import inverse_root
from gnomon.kernels.engine.sizes import Gpu
from gnomon.kernels.weight_norm import _unit
from gnomon.kernels.weight_norm._geometry import STRIP, TILE_ROWS

# Shared memory of one block that lets three of them wait for memory at a time; strips
# get wider as long as they fit.
SHARED_BYTES = 2**16


def forward(
    v: Array, g: Array, eps: Array, *, sizes: Gpu, interpret: Any = None
) -> Array:
    """Gives the units of `v` the lengths `g`.

    `v` is [stack, m, n] and `g` [stack, m, 1], by rows, or [stack, 1, n], by columns.
    """
    if _by_row(v, g):
        (w,) = _map_rows(
            _unit.forward, [v], g, eps, scales=0, sizes=sizes, interpret=interpret
        )
    else:
        (w,) = _map_columns(
            _forward_columns, [v], g, eps, scales=0, sizes=sizes, interpret=interpret
        )
    return w.reshape(v.shape)


def backward(
    v: Array, g: Array, dw: Array, eps: Array, *, sizes: Gpu, interpret: Any = None
) -> tuple[Array, Array]:
    """Cotangents of `v`, in its dtype, and of `g`, in float32."""
    arguments = ([v, dw], g, eps)
    if _by_row(v, g):
        dv, dg = _map_rows(
            _unit.backward, *arguments, scales=1, sizes=sizes, interpret=interpret
        )
    else:
        dv, dg = _map_columns(
            _backward_columns, *arguments, scales=1, sizes=sizes, interpret=interpret
        )
    return dv.reshape(v.shape), dg.reshape(g.shape)


def _by_row(v: Array, g: Array) -> bool:
    return g.shape[1:] != (1, v.shape[2])


def _map_rows(
    body: Callable[..., tuple[Array, ...]],
    weights: Sequence[Array],
    g: Array,
    eps: Array,
    *,
    scales: int,
    sizes: Gpu,
    interpret: Any,
) -> Sequence[Array]:
    """Calls `body` on one row after the other: a row out, then `scales` numbers."""
    n = weights[0].shape[2]
    m = weights[0].size // n
    blocks = min(m, sizes.blocks)
    vector = next(v for v in (8, 4, 2, 1) if n % (THREADS * v) == 0)
    layout = plgpu.Layout.WG_STRIDED((n,), vec_size=vector)
    read: Any = plgpu.load  # jax 0.10 declares it with one more argument

    def kernel(eps_ref, g_ref, *refs):
        block = lax.axis_index("block")

        def step(i, carry):
            row = block + i * blocks
            values = [
                read(ref.at[row], layout=layout, optimized=False).astype(jnp.float32)
                for ref in refs[: len(weights)]
            ]
            answers = body(*values, g_ref[row], eps_ref[0], jnp.sum)
            for ref, value in zip(refs[len(weights) :], answers, strict=True):
                ref[row] = value.astype(ref.dtype)
            return carry

        lax.fori_loop(0, (m - block + blocks - 1) // blocks, step, 0)

    return plgpu.kernel(
        kernel,
        out_type=[
            jax.ShapeDtypeStruct((m, n), weights[0].dtype),
            *[jax.ShapeDtypeStruct((m,), jnp.float32)] * scales,
        ],
        grid=(blocks,),
        grid_names=("block",),
        interpret=interpret,
    )(
        eps.astype(jnp.float32).reshape(1),
        g.astype(jnp.float32).reshape(m),
        *(x.reshape(m, n) for x in weights),
    )


def _forward_columns(
    g: Array, eps: Array, square: Array, nothing: Array
) -> tuple[Callable[..., Array], tuple[Array, ...]]:
    """The weights, as a function of `v`, from sums over columns."""
    del nothing
    inverse = inverse_root(square + eps)
    return lambda along, v: v * along(inverse) * along(g), ()


def _backward_columns(
    g: Array, eps: Array, square: Array, product: Array, nothing: Array
) -> tuple[Callable[..., Array], tuple[Array, ...]]:
    """The cotangent of `v`, as a function of `v` and `dw`, and that of `g`."""
    inverse = inverse_root(square + eps)
    # Where the square overflows the product may too.
    dg = jnp.where(inverse == 0, nothing, inverse * product)
    return (
        lambda along, v, dw: along(g * inverse) * (dw - v * along(inverse) * along(dg)),
        (dg,),
    )


def _map_columns(
    body: Callable[..., tuple[Callable[..., Array], tuple[Array, ...]]],
    weights: Sequence[Array],
    g: Array,
    eps: Array,
    *,
    scales: int,
    sizes: Gpu,
    interpret: Any,
) -> Sequence[Array]:
    """Calls `body` on sums over strips of columns, then what it gives on every tile."""
    stack, m, n = weights[0].shape
    dtype = weights[0].dtype
    column_bytes = len(weights) * m * dtype.itemsize
    widths = [w for w in (4 * STRIP, 2 * STRIP, STRIP) if n % w == 0]
    width = next((w for w in widths if w * column_bytes <= SHARED_BYTES), STRIP)
    # TMA copies at most 256 rows at a time.
    rows = next(r for r in (4 * TILE_ROWS, 2 * TILE_ROWS, TILE_ROWS) if m % r == 0)
    layout = plgpu.Layout.WGMMA
    read: Any = plgpu.load

    def kernel(eps_ref, g_ref, *refs):
        inputs, (out, *scale_refs) = refs[: len(weights)], refs[len(weights) : -3]
        strips, scale_strips, arrived = refs[-3:]
        layer = lax.axis_index("layer")
        columns = pl.ds(lax.axis_index("strip") * width, width)

        def fetch(i, carry):
            part = pl.ds(i * rows, rows)
            for ref, strip in zip(inputs, strips, strict=True):
                plgpu.copy_gmem_to_smem(
                    ref.at[layer, part, columns], strip.at[part], arrived
                )
            return carry

        lax.fori_loop(0, m // rows, fetch, 0)
        plgpu.barrier_wait(arrived)

        def tile(strip, i):
            part = pl.ds(i * TILE_ROWS, TILE_ROWS)
            x = read(strip.at[part], layout=layout, optimized=False)
            return x.astype(jnp.float32)

        def add(i, totals):
            v, *others = (tile(strip, i) for strip in strips)
            # The last tells units that are not finite from those whose square is not.
            factors = (v, *others, 0.0)
            pairs = zip(totals, factors, strict=True)
            return tuple(total + v * x for total, x in pairs)

        zero = plgpu.layout_cast(jnp.zeros((TILE_ROWS, width), jnp.float32), layout)
        totals = lax.fori_loop(0, m // TILE_ROWS, add, (zero,) * (len(weights) + 1))
        sums = [jnp.sum(total, axis=0) for total in totals]
        scale = read(g_ref.at[layer, columns], layout=layout.reduce(0), optimized=False)
        finish, answers = body(scale, eps_ref[0], *sums)

        def along(unit):
            return lax.broadcast_in_dim(unit, (TILE_ROWS, width), (1,))

        def write(i, carry):
            value = finish(along, *(tile(strip, i) for strip in strips))
            strips[0][pl.ds(i * TILE_ROWS, TILE_ROWS)] = value.astype(dtype)
            return carry

        lax.fori_loop(0, m // TILE_ROWS, write, 0)
        for strip, answer in zip(scale_strips, answers, strict=True):
            strip[...] = answer
        plgpu.commit_smem()

        def send(i, carry):
            part = pl.ds(i * rows, rows)
            plgpu.copy_smem_to_gmem(strips[0].at[part], out.at[layer, part, columns])
            return carry

        lax.fori_loop(0, m // rows, send, 0)
        for ref, strip in zip(scale_refs, scale_strips, strict=True):
            plgpu.copy_smem_to_gmem(strip, ref.at[layer, columns])
        plgpu.wait_smem_to_gmem(0)

    return plgpu.kernel(
        kernel,
        out_type=[
            jax.ShapeDtypeStruct(weights[0].shape, dtype),
            *[jax.ShapeDtypeStruct((stack, n), jnp.float32)] * scales,
        ],
        scratch_types=[
            [plgpu.SMEM((m, width), dtype)] * len(weights),
            [plgpu.SMEM((width,), jnp.float32)] * scales,
            plgpu.Barrier(num_arrivals=m // rows * len(weights)),
        ],
        grid=(stack, n // width),
        grid_names=("layer", "strip"),
        interpret=interpret,
    )(
        eps.astype(jnp.float32).reshape(1),
        g.astype(jnp.float32).reshape(stack, n),
        *weights,
    )
