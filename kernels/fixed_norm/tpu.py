"""A step of fixed norm on TPU: one kernel, the sums included.

It reads two arrays and writes one; a layer that does not fit the chip is read twice.
"""

import jax
from jax.sharding import NamedSharding

from gnomon.kernels import _sweeps_tpu
from gnomon.kernels.fixed_norm._leaf import program
from gnomon.kernels.fixed_norm.reference import Options, Scalars


def step(
    w: jax.Array,
    u: jax.Array,
    norm: jax.Array,
    s: Scalars,
    options: Options,
    axes: tuple[int, ...],
    *,
    stack: tuple[int, ...] = (),
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
) -> jax.Array:
    """One step, see :func:`gnomon.kernels.fixed_norm.step`."""
    return _sweeps_tpu.step(
        program(options),
        {"w": w, "u": u},
        {"norm": norm},
        s,
        reduce=axes,
        stack=stack,
        key=key,
        sharding=sharding,
    )["w"]
