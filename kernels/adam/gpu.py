"""Adam's step as a Mosaic GPU kernel (Hopper); AdamP's update is the same kernel.

Three arrays are references that the kernel reads and writes, so nothing is copied where
the caller donates them. A leaf is one run of numbers in memory: blocks of eight numbers
a thread, then blocks of one number a thread, then single numbers.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from gnomon.kernels._rounding import random_bits, stochastic_round
from gnomon.kernels._rows_gpu import BLOCKS, THREADS
from gnomon.kernels.adam import _leaf
from gnomon.kernels.adam.reference import Moved, Scalars, direction

# Numbers of one array that a thread holds: 16 bytes in bfloat16 and twice that in
# float32, from each of four arrays before the first is used.
PER_THREAD = 8
# A row of this length takes 16 registers a thread in each of four arrays.
MAX_ROW = 2**11


def holds_whole_rows(columns: int) -> bool:
    """Whether a row of so many numbers lies in the registers of one block."""
    return columns <= MAX_ROW and columns % THREADS == 0


def update(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    s: Scalars,
    *,
    units: jax.Array | None = None,
    axis: int | None = None,
    whole: bool = False,
    nesterov: bool = False,
    seeds: jax.Array | None = None,
    interpret: Any = None,
) -> Moved:
    """Updates a leaf of shape (layers, rows, columns) in place.

    Args:
      w: the parameter.
      g: the gradient.
      m: the first moment.
      v: the second moment.
      s: scalars of the step.
      units: a coefficient of ``w`` for every unit, in place of the weight decay, and
        the factor on ``<p, w>`` to take off it: of shape (layers, rows, 2) where rows
        are units and (layers, 2, columns) where columns are.
      axis: the axis inside one unit, 1 or 2, when ``units`` is given.
      whole: whether ``<p, w>`` is found on the chip, for which rows are units and
        :func:`holds_whole_rows`; if not, the factor is left unused.
      nesterov: look ahead by one step of momentum.
      seeds: two int32 words for stochastic rounding to bfloat16, or None.
      interpret: for :func:`plgpu.kernel`.

    Returns:
      The leaf after the step.
    """
    layers, rows, columns = w.shape
    # Rows of all layers follow each other in memory; columns are cut at every layer.
    layers, rows = (layers, rows) if axis == 1 else (1, layers * rows)
    size = rows * columns
    length = columns if whole else THREADS * PER_THREAD
    # A layer, and a lane that jax.vmap adds, must start where a vector may.
    vector = _vector(length, size, *([columns] if axis == 1 else []))
    blocks, rest = divmod(size, length)
    pieces, singles = divmod(rest, THREADS)
    programs = max(min(blocks, BLOCKS), pieces + singles)
    seeds = seeds if w.dtype == jnp.bfloat16 else None
    coefficients = [] if units is None else _coefficients(units, axis, length)

    def body(scalars_ref, g_ref, *refs):
        *units_ref, w_ref, m_ref, v_ref = refs
        seeds_ref = units_ref.pop(0) if seeds is not None else None
        s = Scalars(*(scalars_ref[i] for i in range(len(Scalars._fields))))
        base = lax.axis_index("layer") * size
        program = lax.axis_index("program")

        def move(start, length, vector):
            """Moves so many numbers of this layer; one is a scalar, not a vector."""
            layout = plgpu.Layout.WG_STRIDED((length,), vec_size=vector)
            where = base + start
            where = where if length == 1 else pl.ds(where, length)

            def load(ref, at=where):
                if length == 1:
                    return ref[at].astype(jnp.float32)
                read: Any = plgpu.load
                x = read(ref.at[at], layout=layout, optimized=False)
                return x.astype(jnp.float32)

            w, g, m, v = (load(ref) for ref in (w_ref, g_ref, m_ref, v_ref))
            p, m, v = direction(g, m, v, s, nesterov)
            decay = s.weight_decay
            if whole:
                row = start // columns
                decay = units_ref[0][row] - units_ref[1][row] * jnp.sum(p * w)
            elif units_ref and axis == 1:
                first = lax.axis_index("layer") * (columns + THREADS * PER_THREAD)
                first = first + lax.rem(start, columns)
                decay = load(
                    units_ref[0], first if length == 1 else pl.ds(first, length)
                )
            elif units_ref:
                decay = _by_row(units_ref[0], start, length, columns, layout)
            w = w - s.learning_rate * (p + decay * w)
            if seeds_ref is not None:
                w = _round(w, base + start, length, layout, seeds_ref)
            for ref, x in ((w_ref, w), (m_ref, m), (v_ref, v)):
                ref[where] = x.astype(ref.dtype)

        def block(i, carry):
            move((program + i * programs) * length, length, vector)
            return carry

        count = (blocks - program + programs - 1) // programs
        lax.fori_loop(0, count, block, 0)
        if pieces:
            pl.when(program < pieces)(
                lambda: move(blocks * length + program * THREADS, THREADS, 1)
            )
        if singles:
            pl.when((program >= pieces) & (program < pieces + singles))(
                lambda: move(size - singles + program - pieces, 1, 1)
            )

    words = [] if seeds is None else [seeds]
    refs = [jax.new_ref(x.reshape(-1)) for x in (w, m, v)]
    plgpu.kernel(
        body,
        grid=(layers, programs),
        grid_names=("layer", "program"),
        kernel_name="adam" if units is None else "adamp",
        interpret=interpret,
    )(jnp.stack(s), g.reshape(-1), *words, *coefficients, *refs)
    return Moved(*(jax.freeze(ref).reshape(w.shape) for ref in refs))


def _vector(length: int, *starts: int) -> int:
    """The most neighbors a thread reads at once, where blocks start at multiples."""
    return next(
        v
        for v in (PER_THREAD, 4, 2, 1)
        if length % (THREADS * v) == 0 and all(start % v == 0 for start in starts)
    )


def _coefficients(units: jax.Array, axis: int | None, length: int) -> list[jax.Array]:
    """What the kernel reads of ``units``, flat."""
    if axis == 2:
        return [units[..., i].reshape(-1) for i in range(2)]
    # Numbers of a block lie in columns that start anywhere and come round again.
    columns = units.shape[2]
    index = jnp.arange(columns + length) % columns
    return [units[:, 0, index].reshape(-1)]


def _by_row(ref: Any, start: jax.Array, length: int, columns: int, layout: Any) -> Any:
    """The coefficient of each number of a block that may span several rows."""
    row = start // columns
    if length == 1:
        return ref[row]
    index = _iota(length, layout)
    coefficient = plgpu.layout_cast(jnp.full((length,), ref[row]), layout)

    def next_row(i, coefficient):
        here = jnp.minimum(row + i, ref.shape[0] - 1)
        return jnp.where(index >= (row + i) * columns - start, ref[here], coefficient)

    spanned = (columns + length - 2) // columns
    return lax.fori_loop(1, 1 + spanned, next_row, coefficient)


def _round(w: Any, first: Any, length: int, layout: Any, seeds_ref: Any) -> Any:
    """Stochastic rounding of so many numbers, with bits from where they lie."""
    one, two = (seeds_ref[i].astype(jnp.uint32) for i in range(2))
    if length > 1:
        index = (first + _iota(length, layout)).astype(jnp.uint32)
        return stochastic_round(w, random_bits(one, two, index))
    # The bits of a scalar cannot be had, so every thread rounds the same number.
    layout = plgpu.Layout.WG_STRIDED((THREADS,), vec_size=1)
    spread = plgpu.layout_cast(jnp.full((THREADS,), w), layout)
    index = jnp.full((THREADS,), first.astype(jnp.uint32))
    bits = random_bits(one, two, plgpu.layout_cast(index, layout))
    return jnp.max(stochastic_round(spread, bits).astype(jnp.float32))


def _iota(length: int, layout: Any) -> jax.Array:
    return plgpu.broadcasted_iota(jnp.int32, (length,), 0, layout=layout)


step = functools.partial(_leaf.step, update)
