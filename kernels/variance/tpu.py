"""A step and the rescaling of a wide layer on TPU: one kernel, the sums included.

It reads two arrays and writes one; a layer that does not fit the chip is read thrice.
"""

import math

import jax
from jax.sharding import NamedSharding

from gnomon.kernels import _sweeps_tpu
from gnomon.kernels.variance._leaf import program
from gnomon.kernels.variance.reference import Scalars


def step(
    w: jax.Array,
    u: jax.Array,
    target: jax.Array,
    s: Scalars,
    axes: tuple[int, ...],
    *,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
) -> jax.Array:
    """One step, see :func:`gnomon.kernels.variance.step`."""
    return _sweeps_tpu.step(
        program(math.prod(w.shape[axis] for axis in axes)),
        {"w": w, "u": u},
        {"target": target},
        s,
        reduce=axes,
        stack=tuple(axis for axis in range(w.ndim) if axis not in axes),
        key=key,
        sharding=sharding,
    )["w"]
