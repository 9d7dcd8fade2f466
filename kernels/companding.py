r"""Numbers in eight bits: codes of a power law, and one scale for a block of numbers.

A number of a block whose largest magnitude is the scale :math:`s` is one of

.. math::
  x = \pm s\\, (c / L)^4, \qquad c = 0, 1, \dots, L

with :math:`L = 127` where it has a sign and :math:`L = 255` where it has none. The
fourth power spends most codes on small numbers: those next to :math:`x` lie within
:math:`4 s\\, ((|x| / s)^{1/4} + 1/L)^3 / L` of it, at most 3.2 % of the scale with a
sign and 1.6 % without, and the smallest is a hundred-millionth of it or less.

Of its two neighbors a number takes one at random, and so is right on average: a decay
by a thousandth a step, which rounding to the nearest code would never let through, gets
through in expectation. The one exception is a number without a sign, below the first
code and not zero: it always takes the first. What is divided by a root of it, as in
Adam, then stays bounded.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, PartitionSpec

from gnomon.kernels.engine.rounding import random_bits

# The largest code of each dtype.
LEVELS = {"int8": 127, "uint8": 255}

# Numbers that share one scale: four bytes in 256 are 1.6 %.
BLOCK = 256


class Coded(NamedTuple):
    """An array in eight bits.

    Its blocks run over the last axes, as few of them as hold a whole block together, in
    row-major order. The axes before those are axes of the scales too, so that arrays
    that are cut along them are coded and decoded where they lie.
    """

    codes: jax.Array  # int8 with a sign, uint8 without; shaped like the array
    scales: jax.Array  # float32, the largest magnitude of each block


def folded(shape: tuple[int, ...], block: int = BLOCK) -> tuple[tuple[int, ...], int]:
    """The axes that blocks do not run over, and how many numbers lie behind them.

    Example:
      >>> folded((12, 768, 3072)), folded((768, 12, 64)), folded((5, 3))
      (((12, 768), 3072), ((768,), 768), ((), 15))
    """
    axis, inner = len(shape), 1
    while axis and inner < block:
        axis -= 1
        inner *= shape[axis]
    return shape[:axis], inner


def bytes_per_number(shape: tuple[int, ...], block: int = BLOCK) -> float:
    """Bytes that one number takes, its share of the scales included.

    Example:
      >>> print(f"{bytes_per_number((768, 3072)):.4f}")
      1.0156
    """
    lead, inner = folded(shape, block)
    scales = math.prod(lead) * -(-inner // block)
    return 1 + 4 * scales / max(math.prod(shape), 1)


def expand(codes: jax.Array) -> jax.Array:
    """The numbers in [-1, 1] that codes stand for, in float32."""
    levels = LEVELS[codes.dtype.name]
    return _power(codes.astype(jnp.int32).astype(jnp.float32), levels)


def _power(code: jax.Array, levels: int) -> jax.Array:
    part = code * jnp.float32(1 / levels)
    return part * jnp.abs(part) * (part * part)


def compress(x: jax.Array, noise: jax.typing.ArrayLike, dtype: str) -> jax.Array:
    """Codes of numbers in [-1, 1], as int32.

    Args:
      x: the numbers, float32.
      noise: uniform in [0, 1): the part of the gap between two codes past which the
        number takes the upper one. 0.5 rounds to the nearest number.
      dtype: ``"int8"`` or ``"uint8"``.

    Returns:
      Codes that fit ``dtype``.
    """
    levels, size = LEVELS[dtype], jnp.abs(x)
    code = (levels * jnp.sqrt(jnp.sqrt(size))).astype(jnp.int32)
    # Clipped one below the last, which a number of that size then always rises to.
    code = jnp.minimum(code, levels - 1)
    step = code.astype(jnp.float32)
    below, above = _power(step, levels), _power(step + 1, levels)
    code = jnp.where(size - below > noise * (above - below), code + 1, code)
    if dtype == "uint8":
        return jnp.where(size > 0, jnp.maximum(code, 1), code)
    return jnp.where(x < 0, -code, code)


def share(x: jax.Array, scale: jax.Array) -> jax.Array:
    """``x / scale``, or ``x`` where that is zero, by no inverse that underflows."""
    scale = jnp.where(scale == 0, 1, scale)
    down = jnp.where(scale > 2.0**64, 2.0**-64, 1)
    return (x * down) / (scale * down)


def noise(words: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two uniform numbers in [0, 1), independent of each other, from 32-bit words."""
    halves = words & jnp.uint32(0xFFFF), words >> jnp.uint32(16)
    # As the upper bits of what a number in [1, 2) has after its point: a chip converts
    # integers at a fraction of the pace of its arithmetic.
    one = jnp.uint32(0x3F800000)
    low, high = (
        jax.lax.bitcast_convert_type(one | (half << jnp.uint32(7)), jnp.float32) - 1
        for half in halves
    )
    return low, high


def seeds(count: jax.typing.ArrayLike) -> jax.Array:
    """Two words to seed one step's rounding with, shape (2,), dtype uint32.

    Counts themselves would not do: combined with small indices they are the same few
    words in another order, step after step.
    """
    which = jnp.asarray(count).astype(jnp.uint32) * 2 + jnp.arange(2, dtype=jnp.uint32)
    return random_bits(jnp.uint32(0x9E3779B9), jnp.uint32(0x7F4A7C15), which)


def dither(count: jax.typing.ArrayLike, shape: tuple[int, ...]) -> jax.Array:
    """Words for :func:`noise`, of a step and of where a number lies in its array."""
    first, second = seeds(count)
    index = jnp.arange(math.prod(shape), dtype=jnp.uint32).reshape(shape)
    return random_bits(first, second, index)


def encode(
    x: jax.Array,
    dtype: str,
    noise: jax.typing.ArrayLike = 0.5,
    *,
    block: int = BLOCK,
) -> Coded:
    """Codes an array.

    Args:
      x: the array, of any shape and floating dtype; it is rounded to float32 first.
      dtype: ``"int8"``, or ``"uint8"`` for an array without negative numbers.
      noise: see :func:`compress`; a number, or an array of the shape of ``x``.
      block: numbers that share one scale, default 256.

    Returns:
      The coded array. A block of zeros has the scale zero; one with a number that is
      not finite decodes to such numbers.

    Example:
      >>> x = jnp.array([1.0, -0.5, 1e-3, 0.0])
      >>> coded = encode(x, "int8")
      >>> print(coded.codes, coded.scales)
      [ 127 -107   23    0] [1.]
      >>> print(decode(coded).round(5))
      [ 1.      -0.50387  0.00108  0.     ]
    """
    x = x.astype(jnp.float32)
    kept = len(folded(x.shape, block)[0])
    scales = _automatic(functools.partial(_largest, block=block), x, _spec(x)[:kept])
    part = share(x, _spread(scales, x, block))
    return Coded(compress(part, noise, dtype).astype(dtype), scales)


def decode(coded: Coded, *, block: int = BLOCK) -> jax.Array:
    """The array that was coded, in float32, see :func:`encode`."""
    return expand(coded.codes) * _spread(coded.scales, coded.codes, block)


def _largest(x: jax.Array, block: int) -> jax.Array:
    """[..., blocks], of blocks of which the last may be short."""
    lead, inner = folded(x.shape, block)
    count = -(-inner // block)
    x = jnp.abs(x).reshape(*lead, inner)
    if count > 1 and inner % block:
        x = jnp.pad(x, [(0, 0)] * len(lead) + [(0, count * block - inner)])
    x = x.reshape(*lead, count, min(block, inner))
    # As integers, of which NaN is the largest: XLA's maximum on CPU may lose it.
    bits = jnp.max(jax.lax.bitcast_convert_type(x, jnp.int32), axis=-1, initial=0)
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _spread(scales: jax.Array, like: jax.Array, block: int) -> jax.Array:
    """The scale of every number of ``like``."""
    lead, inner = folded(like.shape, block)

    def run(scales):
        width = min(block, inner)
        full = jnp.broadcast_to(scales[..., None], (*scales.shape, width))
        full = full.reshape(*lead, scales.shape[-1] * width)
        return full[..., :inner].reshape(like.shape)

    return _automatic(run, scales, _spec(like))


def _spec(x: jax.Array) -> tuple:
    return tuple(jax.typeof(x).sharding.spec)


def _automatic(run: Callable, x: jax.Array, spec: tuple) -> jax.Array:
    """``run(x)``, which reshapes axes that may be cut, under any kind of mesh.

    Sharding in types has no rule for such a reshape; the compiler has. ``spec`` says
    how the result is cut.
    """
    if AxisType.Explicit not in jax.typeof(x).sharding.mesh.axis_types:
        return run(x)
    return jax.sharding.auto_axes(run, out_sharding=PartitionSpec(*spec))(x)
