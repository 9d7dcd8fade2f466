"""Adam's step with moments in eight bits as one Pallas kernel for TPU.

A leaf is seen as rows, each of whole blocks. Scales are handed over with their blocks
first and their rows last, where 128 of them fill a register; in a block of numbers they
belong beside the rows. The sum of a diagonal matrix along one axis or the other takes
them from here to there, which every chip can do in a few instructions.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gnomon.kernels.adam.program import Moved, Scalars, program
from gnomon.kernels.adam_8bit import _leaf, _tiles
from gnomon.kernels.companding import Coded, compress, expand, folded, noise, share
from gnomon.kernels.engine.rounding import random_bits, stochastic_round


def _body(scalars_ref, seed_ref, *refs, nesterov, stochastic, block, columns):
    *inputs, w_out, m_out, sm_out, v_out, sv_out = refs
    w_ref, g_ref, m_ref, sm_ref, v_ref, sv_ref, *pull_ref = inputs
    s = Scalars(*(scalars_ref[0, i] for i in range(len(Scalars._fields))))
    rows, width = w_ref.shape
    top, left = pl.program_id(0) * rows, pl.program_id(1) * width
    square = (rows, rows)
    diagonal = jax.lax.broadcasted_iota(
        jnp.int32, square, 0
    ) == jax.lax.broadcasted_iota(jnp.int32, square, 1)

    def beside(row):  # [1, rows] to [rows, 1]
        return jnp.sum(jnp.where(diagonal, row, 0.0), axis=1, keepdims=True)

    def below(column):  # [rows, 1] to [1, rows]
        return jnp.sum(jnp.where(diagonal, column, 0.0), axis=0, keepdims=True)

    def code(x, scale, noise, dtype):
        return compress(share(x, scale), noise, dtype)

    def one_block(k, size):
        start, line = k * block, pl.ds(k, 1)
        part = pl.ds(start if isinstance(k, int) else pl.multiple_of(start, 128), size)
        shape = (rows, size)
        w, g = (ref[:, part].astype(jnp.float32) for ref in (w_ref, g_ref))
        blocks = {"w": w, "g": g}
        blocks["m"] = expand(m_ref[:, part]) * beside(sm_ref[line, :])
        blocks["v"] = expand(v_ref[:, part]) * beside(sv_ref[line, :])
        for ref in pull_ref:
            blocks["decay"] = ref[...] if ref.shape[1] == 1 else ref[:, part]
        moved = program(nesterov=nesterov, pulled=bool(pull_ref)).update(blocks, (), s)
        w, m, v = moved["w"], moved["m"], moved["v"]

        across = jax.lax.broadcasted_iota(jnp.int32, shape, 1) + (left + start)
        # What lies past the edge is anything, and must not be the largest.
        inside = across < columns
        m, v = jnp.where(inside, m, 0.0), jnp.where(inside, v, 0.0)
        largest_m = jnp.max(jnp.abs(m), axis=1, keepdims=True)
        largest_v = jnp.max(v, axis=1, keepdims=True)

        def words(first):
            down = jax.lax.broadcasted_iota(jnp.int32, shape, 0) + top
            index = (down * columns + across).astype(jnp.uint32)
            one, two = (seed_ref[0, first + i].astype(jnp.uint32) for i in range(2))
            return random_bits(one, two, index)

        if seed_ref.shape[1] > 2:
            w = stochastic_round(w, words(2))
        w_out[:, part] = w.astype(w_out.dtype)
        low: Any = 0.5
        high: Any = 0.5
        if stochastic:
            low, high = noise(words(0))
        m_out[:, part] = code(m, largest_m, low, "int8").astype(jnp.int8)
        v_out[:, part] = code(v, largest_v, high, "uint8").astype(jnp.uint8)
        sm_out[line, :] = below(largest_m)
        sv_out[line, :] = below(largest_v)

    whole, rest = divmod(width, block)

    if whole:

        @pl.loop(0, whole)
        def _(k):
            one_block(k, block)

    if rest:
        one_block(whole, rest)


def _update(w, g, m, v, s, seed, pull, *, nesterov, stochastic, block, sizes):
    """One leaf, or a shard of one."""
    lead, _ = folded(w.shape, block)
    rows, columns, blocks, height, width, split = _tiles.tiles(w.shape, block, sizes)
    if pull is not None:
        pull = _fold_pull(pull, w.shape, len(lead), spread=split)
    count = min(blocks, sizes.coded_blocks)
    leaf = pl.BlockSpec((height, width), lambda i, j: (i, j))
    small = pl.BlockSpec(memory_space=pltpu.SMEM)
    scale = pl.BlockSpec((count, height), lambda i, j: (j, i))
    arrays = [
        w.reshape(rows, columns),
        g.reshape(rows, columns),
        m.codes.reshape(rows, columns),
        m.scales.reshape(rows, blocks).T,
        v.codes.reshape(rows, columns),
        v.scales.reshape(rows, blocks).T,
    ]
    specs = [leaf, leaf, leaf, scale, leaf, scale]
    if pull is not None:
        pull = pull.reshape(rows, columns) if split else pull
        along_rows = pl.BlockSpec((1, width), lambda i, j: (0, j))
        along_columns = pl.BlockSpec((height, 1), lambda i, j: (i, 0))
        one_row = along_rows if pull.shape[0] == 1 else along_columns
        arrays.append(pull)
        specs.append(leaf if pull.shape == (rows, columns) else one_row)
    needed = _tiles.vmem_bytes(w.shape, w.dtype, g.dtype, block=block, sizes=sizes)
    results = pl.pallas_call(
        functools.partial(
            _body,
            nesterov=nesterov,
            stochastic=stochastic,
            block=block,
            columns=columns,
        ),
        out_shape=[
            jax.ShapeDtypeStruct(arrays[i].shape, arrays[i].dtype)
            for i in (0, 2, 3, 4, 5)
        ],
        grid=(pl.cdiv(rows, height), pl.cdiv(columns, width)),
        in_specs=[small, small, *specs],
        out_specs=[leaf, leaf, scale, leaf, scale],
        input_output_aliases={2: 0, 4: 1, 5: 2, 6: 3, 7: 4},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",) * 2,
            vmem_limit_bytes=max(needed * 5 // 4, 16 * 2**20),
        ),
        name="adam_8bit" if pull is None else "adamp_8bit",
    )(jnp.stack(s)[None], seed[None], *arrays)
    w_new, m_codes, m_scales, v_codes, v_scales = results
    return Moved(
        w_new.reshape(w.shape),
        Coded(m_codes.reshape(w.shape), m_scales.T.reshape(m.scales.shape)),
        Coded(v_codes.reshape(w.shape), v_scales.T.reshape(v.scales.shape)),
    )


def _fold_pull(pull, shape, kept, spread):
    """[rows, columns], with one row or column where those are equal, unless spread."""
    many_rows = any(n > 1 for n in pull.shape[:kept])
    many_columns = any(n > 1 for n in pull.shape[kept:])
    lead = shape[:kept] if spread or many_rows else (1,) * kept
    trail = shape[kept:]
    if many_rows and not (spread or many_columns):
        trail = (1,) * len(trail)
    full = jnp.broadcast_to(pull, (*lead, *trail))
    return full.reshape(math.prod(lead), math.prod(trail))


step = functools.partial(_leaf.step, _update)
