"""FAdam's step on a GPU (Hopper): two kernels of sums and one that updates in place.

They read eight arrays and write three; a layer of at most 2048 numbers, which fits the
registers of a block, is read once by the last kernel alone.
"""

import functools

import jax
import jax.numpy as jnp

from gnomon.kernels.engine.gpu import runner
from gnomon.kernels.fadam import _leaf


def power(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """``x ** exponent`` for what is not negative, made of what Mosaic GPU has."""

    # Of a logarithm that is not infinite, 0 times which would not be 0.
    return jax.lax.cond(
        exponent == 1,
        lambda: x,
        lambda: jnp.exp2(exponent * jnp.maximum(jnp.log2(x), -1e30)),
    )


step = functools.partial(_leaf.step, runner.step, power)
