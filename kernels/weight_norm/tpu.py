"""Weight normalization on a TPU: two array passes forward, three backward."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gnomon.kernels.engine.layout import Layout
from gnomon.kernels.engine.sizes import Tpu
from gnomon.kernels.engine.tpu.blocks import cut, padded, turns_units
from gnomon.kernels.weight_norm import _unit


def forward(
    v: Array, g: Array, eps: Array, *, sizes: Tpu, interpret: Any = False
) -> Array:
    """Gives the units of `v` the lengths `g`.

    `v` is [stack, m, n] and `g` [stack, m, 1], by rows, or [stack, 1, n], by columns.
    """
    (w,) = _map_units(
        _unit.forward, [v], g, eps, scales=0, sizes=sizes, interpret=interpret
    )
    return w


def backward(
    v: Array, g: Array, dw: Array, eps: Array, *, sizes: Tpu, interpret: Any = False
) -> tuple[Array, Array]:
    """Cotangents of `v`, in its dtype, and of `g`, in float32."""
    dv, dg = _map_units(
        _unit.backward, [v, dw], g, eps, scales=1, sizes=sizes, interpret=interpret
    )
    return dv, dg


def _map_units(
    body: Callable[..., tuple[Array, ...]],
    weights: Sequence[Array],
    g: Array,
    eps: Array,
    *,
    scales: int,
    sizes: Tpu,
    interpret: Any,
) -> list[Array]:
    """Calls `body` on blocks of whole units: a weight out, then `scales` like `g`."""
    dtype = weights[0].dtype
    stack, m, n = weights[0].shape
    axis = 1 if g.shape[1:] == (1, n) else 2
    where = Layout((0, 1, 2), (stack, m, n), axis)
    block_m, block_n = cut(where, sizes.block, axis)
    turned = turns_units(where, (block_m, block_n))
    grid = (stack, pl.cdiv(m, block_m), pl.cdiv(n, block_n))
    blocks = pl.BlockSpec((None, block_m, block_n), lambda layer, i, j: (layer, i, j))
    # Units are whole: the index along them is zero.
    if axis == 1:
        units = pl.BlockSpec((None, 1, block_n), lambda layer, i, j: (layer, 0, j))
    elif turned:
        units = pl.BlockSpec((None, 1, block_m), lambda layer, i, j: (layer, 0, i))
    else:
        units = pl.BlockSpec((None, block_m, 1), lambda layer, i, j: (layer, i, 0))
    g = g.swapaxes(1, 2) if turned else g
    area = math.prod(padded((block_m, block_n)))

    def kernel(eps_ref, g_ref, *refs):
        values = [ref[...].astype(jnp.float32) for ref in refs[: len(weights)]]

        def total(x):
            return jnp.sum(x, axis=axis - 1, keepdims=True)

        lengths = g_ref[...].astype(jnp.float32)
        weight, *numbers = body(
            *values, lengths.T if turned else lengths, eps_ref[0], total
        )
        out, *small = refs[len(weights) :]
        out[...] = weight.astype(out.dtype)
        for ref, value in zip(small, numbers, strict=True):
            ref[...] = value.T if turned else value

    size = weights[0].size
    passes = len(weights) + 1
    weight, *small = pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            units,
            *[blocks] * len(weights),
        ],
        out_specs=[blocks, *[units] * scales],
        out_shape=[
            jax.ShapeDtypeStruct(weights[0].shape, dtype),
            *[jax.ShapeDtypeStruct(g.shape, jnp.float32)] * scales,
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel"),
            # Two buffers of every block for the pipeline, and as much again in float32
            # while it is computed with. Sixteen MiB are given without asking.
            vmem_limit_bytes=max(
                2**24, passes * area * (2 * dtype.itemsize + 8) + 2**22
            ),
        ),
        cost_estimate=pl.CostEstimate(
            flops=4 * passes * size,
            transcendentals=g.size,
            bytes_accessed=passes * size * dtype.itemsize + 4 * g.size * (1 + scales),
        ),
        interpret=interpret,
    )(eps.astype(jnp.float32).reshape(1), g, *weights)
    return [weight, *(x.swapaxes(1, 2) if turned else x for x in small)]
