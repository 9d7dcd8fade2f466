"""A step and the rescaling of a wide layer as two sums and an update."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.engine.program import Program, Sweep
from gnomon.kernels.variance.reference import Scalars, rescaled


def program(length: int) -> Program:
    """The step on layers of ``length`` numbers; arrays ``w``, ``u``, unit ``target``.

    The mean comes before the squares, which are small differences otherwise.
    """

    def moved(blocks):
        return blocks["w"] + blocks["u"]

    def squares(blocks, totals, s):
        return (jnp.square(moved(blocks) - totals[0] / length),)

    def update(blocks, totals, s):
        mean = totals[0] / length
        spread = jnp.sqrt(totals[1] / max(length - 1, 1))
        return {"w": rescaled(moved(blocks), mean, spread, blocks["target"], s)}

    reads = ("w", "u")
    sweeps = (
        Sweep(reads, 1, lambda blocks, totals, s: (moved(blocks),)),
        Sweep(reads, 1, squares),
    )
    return Program("variance", sweeps, update, ("w",))


def step(
    run: Callable[..., dict[str, jax.Array]],
    w: jax.Array,
    u: jax.Array,
    target: jax.Array,
    s: Scalars,
    axes: tuple[int, ...],
    *,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
) -> jax.Array:
    """One step, see :func:`gnomon.kernels.variance.step`, by what runs programs."""
    return run(
        program(math.prod(w.shape[axis] for axis in axes)),
        {"w": w, "u": u},
        {"target": target},
        s,
        reduce=axes,
        stack=tuple(axis for axis in range(w.ndim) if axis not in axes),
        key=key,
        sharding=sharding,
    )["w"]
