"""Adam's step as one Pallas kernel for TPU; AdamP's update pass is the same kernel."""

import functools
import math

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gnomon.kernels._layout import tile
from gnomon.kernels._rounding import random_bits, stochastic_round
from gnomon.kernels.adam import _leaf
from gnomon.kernels.adam.reference import Moved, Scalars, compute_dtype, direction

# Numbers in a block: its buffers and temporaries take about 10 MB in float32, within
# the 16 MB of VMEM that a kernel gets unasked, and a block is long enough to hide the
# start of its copies.
BLOCK_ELEMENTS = 2**17

# VMEM that a block of whole units may ask for; the smallest current chip has 64 MB.
VMEM_BYTES = 48 * 2**20


def vmem_bytes(block: tuple[int, int], dtypes) -> int:
    """VMEM that a block needs: two buffers an operand, and six float32 temporaries."""
    w, g, m, v = (jnp.dtype(dtype).itemsize for dtype in dtypes)
    return math.prod(block) * (2 * (2 * w + g + 2 * m + 2 * v) + 6 * 4)


def _body(*refs, nesterov, axis, whole, stochastic, columns):
    """One block; ``axis`` is its axis inside one unit, and None without units."""
    scalars_ref, *rest = refs
    seeds_ref = rest.pop(0) if stochastic else None
    w_ref, g_ref, m_ref, v_ref, *units_ref, w_out, m_out, v_out = rest
    dtype = compute_dtype(w_ref.dtype)
    s = Scalars(*(scalars_ref[0, i] for i in range(len(Scalars._fields))))
    w, g, m, v = (ref[...].astype(dtype) for ref in (w_ref, g_ref, m_ref, v_ref))
    p, m, v = direction(g, m, v, s, nesterov)
    decay = s.weight_decay
    if units_ref:
        units = units_ref[0][...]
        decay, factor = jnp.split(units, 2, axis=axis)
        if whole:
            decay = decay - factor * jnp.sum(p * w, axis=axis, keepdims=True)
    w = w - s.learning_rate * (p + decay * w)
    if stochastic:
        w = stochastic_round(w, _bits(seeds_ref, w.shape, columns))
    w_out[...] = w.astype(w_out.dtype)
    m_out[...] = m.astype(m_out.dtype)
    v_out[...] = v.astype(v_out.dtype)


def _bits(seeds_ref, block, columns):
    """Random words for one block, from the index of each number in the leaf."""
    layer, row, column = (pl.program_id(axis) for axis in range(3))
    rows = jax.lax.broadcasted_iota(jnp.int32, block, 0) + row * block[0]
    offsets = jax.lax.broadcasted_iota(jnp.int32, block, 1) + column * block[1]
    # The third seed is the number of rows times columns in one layer.
    index = layer * seeds_ref[0, 2] + rows * columns + offsets
    first, second = (seeds_ref[0, i].astype(jnp.uint32) for i in range(2))
    return random_bits(first, second, index.astype(jnp.uint32))


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
    block_elements: int | None = None,
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
      whole: whether blocks hold whole units, so that ``<p, w>`` is found on the chip;
        if not, the factor is left unused.
      nesterov: look ahead by one step of momentum.
      seeds: two int32 words for stochastic rounding to bfloat16, or None.
      block_elements: about how many numbers a block has.

    Returns:
      The leaf after the step.
    """
    layers, rows, columns = w.shape
    dtypes = [x.dtype for x in (w, g, m, v)]
    elements = block_elements or BLOCK_ELEMENTS
    block = tile(rows, columns, axis if whole else None, elements)
    leaf = pl.BlockSpec((None, *block), lambda i, j, k: (i, j, k))
    small = pl.BlockSpec(memory_space=pltpu.SMEM)
    # Of rank two, or a TPU refuses them with the axis that jax.vmap adds.
    operands = [(jnp.stack(s)[None], small)]
    stochastic = seeds is not None and w.dtype == jnp.bfloat16
    if seeds is not None and stochastic:
        size = jnp.asarray([rows * columns], jnp.int32)
        operands.append((jnp.concatenate([seeds, size])[None], small))
    first = len(operands)
    operands += [(x, leaf) for x in (w, g, m, v)]
    if units is not None and axis == 1:
        operands.append(
            (units, pl.BlockSpec((None, 2, block[1]), lambda i, j, k: (i, 0, k)))
        )
    elif units is not None:
        operands.append(
            (units, pl.BlockSpec((None, block[0], 2), lambda i, j, k: (i, j, 0)))
        )
    inputs, in_specs = zip(*operands, strict=True)
    outputs = pl.pallas_call(
        functools.partial(
            _body,
            nesterov=nesterov,
            axis=None if axis is None else axis - 1,
            whole=whole,
            stochastic=stochastic,
            columns=columns,
        ),
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (w, m, v)],
        grid=(layers, pl.cdiv(rows, block[0]), pl.cdiv(columns, block[1])),
        in_specs=in_specs,
        out_specs=[leaf] * 3,
        input_output_aliases={first: 0, first + 2: 1, first + 3: 2},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel",) * 3,
            vmem_limit_bytes=max(vmem_bytes(block, dtypes) * 5 // 4, 16 * 2**20),
        ),
        name="adam" if units is None else "adamp",
    )(*inputs)
    return Moved(*outputs)


step = functools.partial(_leaf.step, update)
