"""FAdam's step on TPU: one kernel, the sums over a layer included.

It reads four arrays and writes three where a layer fits the chip. Where it does not,
the gradient is read twice more, and the root and the parameter once.
"""

import math

import jax
from jax.sharding import NamedSharding

from gnomon.kernels import _sweeps_tpu
from gnomon.kernels.fadam._leaf import program
from gnomon.kernels.fadam.reference import Moved, Options, Scalars


def step(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    root: jax.Array,
    s: Scalars,
    options: Options,
    axes: tuple[int, ...],
    *,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
) -> Moved:
    """One step, see :func:`gnomon.kernels.fadam.step`."""
    moved = _sweeps_tpu.step(
        program(options, math.prod(w.shape[axis] for axis in axes)),
        {"w": w, "g": g, "m": m, "root": root},
        {},
        s,
        reduce=axes,
        stack=tuple(axis for axis in range(w.ndim) if axis not in axes),
        key=key,
        sharding=sharding,
    )
    return Moved(**moved)
