"""Adam's step with moments in eight bits as one Mosaic GPU kernel (Hopper).

Every warp holds one block, and so finds its scale without leaving its registers: four
rows of a leaf move together, or all warps share one block of the rows that are left.
Parameter, codes and scales are references that the kernel reads and writes, so nothing
is copied where the caller donates them.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from gnomon.kernels.adam.program import Moved, Scalars, program
from gnomon.kernels.adam_8bit import _leaf
from gnomon.kernels.adam_8bit._pieces import WARPS, pieces_of
from gnomon.kernels.adam_8bit._pull import fold_pull
from gnomon.kernels.companding import Coded, compress, expand, folded, noise
from gnomon.kernels.engine.rounding import random_bits, stochastic_round
from gnomon.kernels.engine.sizes import Gpu

# Of a program in a large leaf: more programs than a chip has room for, so that one
# starts where another ends and none is left with most of the work.
STEPS = 8


def update(
    w: jax.Array,
    g: jax.Array,
    m: Coded,
    v: Coded,
    s: Scalars,
    seed: jax.Array,
    pull: jax.Array | None,
    *,
    nesterov: bool,
    stochastic: bool,
    block: int,
    sizes: Gpu,
) -> Moved:
    """Updates one leaf, or a shard of one, in place.

    Args:
      w: the parameter.
      g: the gradient.
      m: the first moment.
      v: the second moment.
      s: scalars of the step.
      seed: two int32 words, and two more that round ``w`` stochastically.
      pull: what to multiply the parameter by, of the leaf's rank, or None.
      nesterov: look ahead by one step of momentum.
      stochastic: round the moments at random.
      block: numbers that share one scale.
      sizes: how much it takes at a time.

    Returns:
      The leaf after the step.
    """
    lead, columns = folded(w.shape, block)
    rows, blocks = math.prod(lead), pl.cdiv(columns, block)
    pulls = None
    if pull is not None and pull.size == 1:
        s = s._replace(weight_decay=pull.reshape(()))
    elif pull is not None:
        pulls = fold_pull(pull, w.shape, len(lead), WARPS)
    if columns % block == 0 and (pulls is None or pulls.rows < 2):
        # Blocks that follow each other in memory can as well be rows, of which any
        # four move together.
        pulls = None if pulls is None else pulls.split(blocks, block)
        rows, columns, blocks = rows * blocks, block, 1
    step = program(nesterov=nesterov, pulled=pulls is not None)
    whole, rest = divmod(columns, block)
    groups, left = divmod(rows, WARPS)
    items = max(groups * max(whole, 1), left * whole, left)
    programs = min(items, max(sizes.blocks, items // STEPS))

    def body(scalars_ref, seed_ref, g_ref, *refs):
        *pull_ref, w_ref, m_ref, sm_ref, v_ref, sv_ref = refs
        s = Scalars(*(scalars_ref[i] for i in range(len(Scalars._fields))))
        seeds = [seed_ref[i].astype(jnp.uint32) for i in range(seed.size)]
        number = lax.axis_index("program")

        def move(row, height, k, width):
            """Moves block `k` of each of so many rows."""
            down = pl.ds(row, height)
            pieces = pieces_of(height, width, columns, w.dtype.itemsize)
            beside = pieces[0].layout.reduce(1)
            old_m, old_v = (_load(ref.at[down, k], beside) for ref in (sm_ref, sv_ref))

            def along(x, piece):
                return lax.broadcast_in_dim(x, (height, piece.size), (0,))

            def where(piece):
                return down, pl.ds(k * block + piece.start, piece.size)

            def advance(piece):
                at, layout = where(piece), piece.layout
                w, g, m, v = (
                    _load(ref.at[at], layout) for ref in (w_ref, g_ref, m_ref, v_ref)
                )
                blocks = {"w": w.astype(jnp.float32), "g": g.astype(jnp.float32)}
                blocks["m"] = expand(m) * along(old_m, piece)
                blocks["v"] = expand(v) * along(old_v, piece)
                if pulls is not None:
                    shape = height, piece.size
                    blocks["decay"] = pulls.load(
                        *(_load, pull_ref[0], row, at[1], shape, layout)
                    )
                moved = step.update(blocks, (), s)
                return moved["w"], moved["m"], moved["v"]

            def words(piece, first, second):
                shape = height, piece.size
                rows_down, across = (
                    plgpu.broadcasted_iota(jnp.int32, shape, axis, layout=piece.layout)
                    for axis in range(2)
                )
                start = row * columns + k * block + piece.start
                index = rows_down * columns + across + start
                return random_bits(first, second, index.astype(jnp.uint32))

            moved = [advance(piece) for piece in pieces]
            _, firsts, seconds = zip(*moved, strict=True)
            new_m = _largest([jnp.abs(x) for x in firsts])
            new_v = _largest(seconds)
            factors_m, factors_v = _inverse(new_m), _inverse(new_v)
            for piece, (wide, first, second) in zip(pieces, moved, strict=True):
                low: Any = 0.5
                high: Any = 0.5
                if stochastic:
                    low, high = noise(words(piece, *seeds[:2]))
                if seeds[2:]:
                    wide = stochastic_round(wide, words(piece, *seeds[2:]))
                for factor in factors_m:
                    first = first * along(factor, piece)
                for factor in factors_v:
                    second = second * along(factor, piece)
                first = compress(first, low, "int8")
                second = compress(second, high, "uint8")
                for ref, x in ((w_ref, wide), (m_ref, first), (v_ref, second)):
                    _store(ref.at[where(piece)], x.astype(ref.dtype))
            _store(sm_ref.at[down, k], new_m)
            _store(sv_ref.at[down, k], new_v)

        def sweep(count: int, call: Callable[[Any], None]) -> None:
            """Shares so many calls out among programs."""

            def share(i, carry):
                call(number + i * programs)
                return carry

            if count:
                lax.fori_loop(0, (count - number + programs - 1) // programs, share, 0)

        def full_block(first, height, i):
            move(first + i // whole * height, height, lax.rem(i, whole), block)

        def last_block(first, height, i):
            move(first + i * height, height, whole, rest)

        for first, height, count in ((0, WARPS, groups), (groups * WARPS, 1, left)):
            sweep(count * whole, functools.partial(full_block, first, height))
            if rest:
                sweep(count, functools.partial(last_block, first, height))

    refs = [
        jax.new_ref(x.reshape(shape))
        for x, shape in (
            (w, (rows, columns)),
            (m.codes, (rows, columns)),
            (m.scales, (rows, blocks)),
            (v.codes, (rows, columns)),
            (v.scales, (rows, blocks)),
        )
    ]
    plgpu.kernel(
        body,
        grid=(programs,),
        grid_names=("program",),
        # Square roots may be a bit off: edges between codes are no sharper.
        compiler_params=plgpu.CompilerParams(approx_math=True),
        kernel_name="adam_8bit" if pull is None else "adamp_8bit",
    )(
        jnp.stack(s),
        seed,
        g.reshape(rows, columns),
        *([] if pulls is None else [pulls.array]),
        *refs,
    )
    w_new, m_codes, m_scales, v_codes, v_scales = (jax.freeze(ref) for ref in refs)
    return Moved(
        w_new.reshape(w.shape),
        Coded(m_codes.reshape(w.shape), m_scales.reshape(m.scales.shape)),
        Coded(v_codes.reshape(w.shape), v_scales.reshape(v.scales.shape)),
    )


def _load(ref: Any, layout: Any = None) -> jax.Array:
    read: Any = plgpu.load  # jax 0.10 declares it with one more argument
    return read(ref, layout=layout, optimized=False)


def _store(ref: Any, x: jax.Array) -> None:
    # Since jax 0.12 what is to store less than whole sectors must say so.
    store = getattr(plgpu, "store", None)
    if store is None:
        ref[...] = x
    else:
        store(ref, x, optimized=False)


def _largest(pieces: Sequence[jax.Array]) -> jax.Array:
    """Of each row, never so small that its inverse overflows unless it is zero."""
    rows = [jnp.max(x, axis=1) for x in pieces]
    largest = functools.reduce(jnp.maximum, rows)
    smallest = jnp.finfo(jnp.float32).tiny
    return jnp.where(largest == 0, largest, jnp.maximum(largest, smallest))


def _inverse(largest: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two factors that divide by the largest; one would underflow at 2**126."""
    down = jnp.where(largest > 2.0**64, 2.0**-64, 1.0)
    return down, 1 / (jnp.where(largest == 0, 1.0, largest) * down)


step = functools.partial(_leaf.step, update)
