"""Stochastic rounding to bfloat16, with bits made from a seed and an index alone.

A kernel that drew from a chip's own generator could not be compared with its
definition, and bits read from memory would cost a pass over the array. A hash of the
element's index costs a few integer operations in registers and is the same everywhere.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax


def seeds_from(key: jax.Array) -> jax.Array:
    """Two 32-bit words from a key, shape (2,), dtype int32 so that SMEM holds them."""
    return lax.bitcast_convert_type(jax.random.bits(key, (2,), jnp.uint32), jnp.int32)


def rounding_seeds(key: jax.Array | None, dtype: Any) -> jax.Array | None:
    """The words to round to ``dtype`` with; None to nearest, as all but bfloat16 is."""
    return None if key is None or dtype != jnp.bfloat16 else seeds_from(key)


def _mix(x: jax.Array) -> jax.Array:
    """The finalizer of MurmurHash3: each input bit flips each output bit half the time.

    Shifts must be logical, so ``x`` is uint32.
    """
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> jnp.uint32(shift))) * jnp.uint32(factor)
    return x ^ (x >> jnp.uint32(16))


def random_bits(first: jax.Array, second: jax.Array, index: jax.Array) -> jax.Array:
    """Uniform 32-bit words, one for each index.

    Args:
      first: first word of the seed, a uint32 scalar.
      second: second word of the seed.
      index: uint32 indices; equal indices give equal words.

    Returns:
      Words of dtype uint32.
    """
    return _mix(_mix(index ^ first) ^ second)


def stochastic_round(x: jax.Array, bits: jax.Array) -> jax.Array:
    """Rounds float32 to one of its two bfloat16 neighbors, right on average.

    Args:
      x: float32 numbers; those that are not finite stay what they are.
      bits: uint32 words, of which the low half is used.

    Returns:
      bfloat16: the neighbor away from zero with a probability equal to the fraction of
      the gap that ``x`` has covered.
    """
    # bfloat16 is the upper half of float32, so adding noise below carries into it.
    noisy = lax.bitcast_convert_type(x, jnp.uint32) + (bits & jnp.uint32(0xFFFF))
    cut = lax.bitcast_convert_type(noisy & jnp.uint32(0xFFFF0000), jnp.float32)
    # A comparison, because Mosaic GPU has no isfinite.
    return jnp.where(jnp.abs(x) < jnp.inf, cut, x).astype(jnp.bfloat16)


def store(x: jax.Array, dtype: Any, key: jax.Array | None) -> jax.Array:
    """``x`` rounded once to ``dtype``: to nearest, or at random where a key is given.

    Args:
      x: the numbers, in the dtype of the computation.
      dtype: the dtype to store them in.
      key: a key, used for bfloat16 alone; None rounds to nearest.

    Returns:
      The numbers.
    """
    seeds = rounding_seeds(key, dtype)
    if seeds is None:
        return x.astype(dtype)
    first, second = seeds.astype(jnp.uint32)
    index = jnp.arange(x.size, dtype=jnp.uint32).reshape(x.shape)
    return stochastic_round(x, random_bits(first, second, index))
