"""Sums over the units of a leaf on a GPU, each array read once.

XLA reads four arrays for AdamP's inner products in every step, because it turns the
condition into a selection, and for columns writes one more array and reads it again.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu as plgpu

from gnomon.kernels._rows_gpu import BLOCKS, THREADS
from gnomon.kernels.adam.reference import Scalars, direction

# Rows of a strip that are loaded together, and the fewest that one block adds up.
TOGETHER, FEWEST = 2, 16
# Numbers of a row that a block loads together.
MAX_PART = 2**11

Terms = Callable[..., tuple[jax.Array, ...]]


def takes(columns: int) -> bool:
    """Whether rows of so many numbers divide by the threads of a block."""
    return columns % THREADS == 0


def squares(scalars: Any, w: jax.Array, g: jax.Array) -> tuple[jax.Array, ...]:
    """What the test adds up."""
    return g * w, g * g, w * w


def products(scalars: Any, w, g, m, v, *, nesterov: bool) -> tuple[jax.Array, ...]:
    """The parameter times Adam's direction."""
    s = Scalars(*(scalars[i] for i in range(len(Scalars._fields))))
    return (direction(g, m, v, s, nesterov)[0] * w,)


def unit_sums(
    terms: Terms,
    arrays: Sequence[jax.Array],
    scalars: jax.Array,
    axis: int,
    *,
    needed: jax.Array | None = None,
    interpret: Any = None,
) -> list[jax.Array]:
    """Sums of ``terms(scalars, *arrays)`` over ``axis``.

    Args:
      terms: gives the numbers to add up, in float32.
      arrays: of shape (layers, rows, columns), where :func:`takes` the columns.
      scalars: a float32 vector.
      axis: 1 or 2.
      needed: a bool without which nothing is read and the sums are zero.
      interpret: for :func:`plgpu.kernel`.

    Returns:
      For each term an array with ``axis`` of size one.
    """
    needed = jnp.asarray(True) if needed is None else needed
    flag = needed.astype(jnp.int32).reshape(1)
    count = len(
        jax.eval_shape(terms, scalars, *(x.astype(jnp.float32) for x in arrays))
    )
    run = _sum_columns if axis == 1 else _sum_rows
    return run(terms, arrays, scalars, flag, count, interpret)


def _load(ref: Any, layout: Any) -> jax.Array:
    read: Any = plgpu.load  # jax 0.10 declares it with one more argument
    return read(ref, layout=layout, optimized=False).astype(jnp.float32)


def _sum_rows(terms, arrays, scalars, flag, count, interpret):
    layers, rows, columns = arrays[0].shape
    m = layers * rows
    blocks = min(m, BLOCKS)
    # The longest part that a row divides into.
    part = next(
        n for n in range(MAX_PART, 0, -THREADS) if columns % n == 0 and n <= columns
    )
    vector = next(v for v in (8, 4, 2, 1) if part % (THREADS * v) == 0)
    layout = plgpu.Layout.WG_STRIDED((part,), vec_size=vector)

    def kernel(flag_ref, scalars_ref, *refs):
        inputs, sums = refs[: len(arrays)], refs[len(arrays) :]
        block = lax.axis_index("block")

        def row_sums(i, carry):
            row = block + i * blocks

            def add(j, totals):
                here = pl.ds(j * part, part)
                values = (_load(ref.at[row, here], layout) for ref in inputs)
                pairs = zip(totals, terms(scalars_ref, *values), strict=True)
                return tuple(total + x for total, x in pairs)

            zero = plgpu.layout_cast(jnp.zeros((part,), jnp.float32), layout)
            parts = columns // part * flag_ref[0]
            totals = lax.fori_loop(0, parts, add, (zero,) * count)
            for ref, total in zip(sums, totals, strict=True):
                ref[row] = jnp.sum(total)
            return carry

        lax.fori_loop(0, (m - block + blocks - 1) // blocks, row_sums, 0)

    sums = plgpu.kernel(
        kernel,
        out_type=[jax.ShapeDtypeStruct((m,), jnp.float32)] * count,
        grid=(blocks,),
        grid_names=("block",),
        kernel_name="unit_sums",
        interpret=interpret,
    )(flag, scalars, *(x.reshape(m, columns) for x in arrays))
    return [x.reshape(layers, rows, 1) for x in sums]


def _sum_columns(terms, arrays, scalars, flag, count, interpret):
    layers, rows, columns = arrays[0].shape
    # As many neighbors a thread as fill 16 bytes of the parameter.
    fill = 16 // arrays[0].dtype.itemsize
    vector = next(v for v in (fill, 4, 2, 1) if columns % (THREADS * v) == 0)
    width = THREADS * vector
    strips = columns // width
    blocks = max(1, min(BLOCKS // (layers * strips), rows // FEWEST))
    chunk = -(-rows // blocks)
    blocks = -(-rows // chunk)
    layout = plgpu.Layout.WG_STRIDED((width,), vec_size=vector)

    def kernel(flag_ref, scalars_ref, *refs):
        inputs, sums = refs[: len(arrays)], refs[len(arrays) :]
        layer, block = lax.axis_index("layer"), lax.axis_index("block")
        strip = pl.ds(lax.axis_index("strip") * width, width)
        first = block * chunk
        here = jnp.minimum(chunk, rows - first) * flag_ref[0]

        def add(row, totals, together):
            # All loads before the first sum, so that they wait for memory together.
            values = [
                [_load(ref.at[layer, row + i, strip], layout) for ref in inputs]
                for i in range(together)
            ]
            for value in values:
                pairs = zip(totals, terms(scalars_ref, *value), strict=True)
                totals = tuple(total + x for total, x in pairs)
            return totals

        def add_together(i, totals):
            return add(first + i * TOGETHER, totals, TOGETHER)

        def add_one(i, totals):
            return add(first + i, totals, 1)

        zero = plgpu.layout_cast(jnp.zeros((width,), jnp.float32), layout)
        steps = here // TOGETHER
        totals = lax.fori_loop(0, steps, add_together, (zero,) * count)
        totals = lax.fori_loop(steps * TOGETHER, here, add_one, totals)
        for ref, total in zip(sums, totals, strict=True):
            ref[layer, block, strip] = total

    sums = plgpu.kernel(
        kernel,
        out_type=[jax.ShapeDtypeStruct((layers, blocks, columns), jnp.float32)] * count,
        grid=(layers, blocks, strips),
        grid_names=("layer", "block", "strip"),
        kernel_name="unit_sums",
        interpret=interpret,
    )(flag, scalars, *arrays)
    # Every block summed its own rows; there is no order among blocks to add up in.
    return [jnp.sum(x, axis=1, keepdims=True) for x in sums]


def both(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    s: Scalars,
    axis: int,
    *,
    nesterov: bool,
    interpret: Any = None,
) -> tuple[Callable[[], Any], Callable[[jax.Array], Any]]:
    """The sums of AdamP's two passes over folded arrays, as functions.

    Returns:
      One that gives the three sums of the test, and one that, told whether it is
      needed at all, gives the inner products with Adam's direction.
    """
    run = functools.partial(
        unit_sums, scalars=jnp.stack(s), axis=axis, interpret=interpret
    )
    inner = functools.partial(products, nesterov=nesterov)
    return (
        lambda: run(squares, (w, g)),
        lambda needed: run(inner, (w, g, m, v), needed=needed)[0],
    )
