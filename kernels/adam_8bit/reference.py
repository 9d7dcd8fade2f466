"""Adam's step on one leaf with its moments in eight bits: the definition."""

from typing import Any

import jax
import jax.numpy as jnp

from gnomon.kernels.adam.program import Moved, Scalars, program
from gnomon.kernels.companding import BLOCK, Coded, decode, dither, encode, noise
from gnomon.kernels.engine import whole
from gnomon.kernels.engine.rounding import store


def step(
    w: jax.Array,
    g: jax.Array,
    m: Coded,
    v: Coded,
    s: Scalars,
    count: jax.Array,
    *,
    pull: jax.Array | None = None,
    nesterov: bool = False,
    stochastic: bool = True,
    block: int = BLOCK,
    key: jax.Array | None = None,
) -> Moved:
    """One step, see :func:`gnomon.kernels.adam_8bit.step`.

    Args:
      w: the parameter.
      g: the gradient.
      m: the first moment.
      v: the second moment.
      s: scalars of the step, float32.
      count: steps taken, this one included; seeds the rounding of the moments.
      pull: what to multiply the parameter by in the step, an array that broadcasts
        against it; default the weight decay.
      nesterov: look ahead by one step of momentum.
      stochastic: round the moments at random.
      block: numbers that share one scale.
      key: a key that rounds bfloat16 parameters stochastically.

    Returns:
      The leaf after the step.
    """
    moved = whole.advance(
        program(nesterov=nesterov, pulled=pull is not None),
        {"w": w, "g": g, "m": decode(m, block=block), "v": decode(v, block=block)},
        {} if pull is None else {"decay": pull},
        *(s, (), jnp.float32),
    )
    low: Any = 0.5
    high: Any = 0.5
    if stochastic:
        low, high = noise(dither(count, w.shape))
    return Moved(
        store(moved["w"], w.dtype, key),
        encode(moved["m"], "int8", low, block=block),
        encode(moved["v"], "uint8", high, block=block),
    )
