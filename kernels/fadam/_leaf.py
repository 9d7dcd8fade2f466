"""FAdam's step as sums over a layer and an update."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.engine.program import Program, Sweep
from gnomon.kernels.fadam.reference import (
    DIVISOR,
    Moved,
    Options,
    Power,
    Scalars,
    inverse,
    metric,
    next_root,
    power,
)


def program(options: Options, length: int, power: Power = power) -> Program:
    """The step on layers of ``length`` numbers: ``w``, ``g``, ``m`` and ``root``."""
    moving = ("g", "w") if options.decays else ("g",)

    def measured(blocks, totals, s):
        of = metric(jnp.sqrt(totals[0] / length), s, options, power)
        root = next_root(blocks["g"], blocks["root"], s)
        return of, root, inverse(root, of, s, power)

    def unit(of, name):
        return of.scale if name == "g" else 1.0

    def rms(name, total, of):
        return jnp.sqrt(total / length) * unit(of, name)

    def squares(blocks, totals, s):
        of, _, per = measured(blocks, totals, s)
        return tuple(jnp.square(blocks[x] * (per / unit(of, x))) for x in moving)

    def update(blocks, totals, s):
        of, root, per = measured(blocks, totals, s)
        natural, *shrinking = (
            blocks[name]
            * (per / DIVISOR[options.clip_rule](of.unit, rms(name, t, of), s.clip))
            for name, t in zip(moving, totals[1:], strict=True)
        )
        m = s.b1 * blocks["m"] + s.one_minus_b1 * natural
        d = sum((s.weight_decay * h for h in shrinking), start=m)
        return {"w": blocks["w"] - s.learning_rate * d, "m": m, "root": root}

    sweeps = (
        Sweep(("g",), 1, lambda blocks, totals, s: (jnp.square(blocks["g"]),)),
        Sweep((*moving, "root"), len(moving), squares),
    )
    return Program("fadam", sweeps, update, ("w", "m", "root"))


def step(
    run: Callable[..., dict[str, jax.Array]],
    power: Power,
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
    """One step, see :func:`gnomon.kernels.fadam.step`, by what runs programs."""
    moved = run(
        program(options, math.prod(w.shape[axis] for axis in axes), power),
        {"w": w, "g": g, "m": m, "root": root},
        {},
        s,
        reduce=axes,
        stack=tuple(axis for axis in range(w.ndim) if axis not in axes),
        key=key,
        sharding=sharding,
    )
    return Moved(**moved)
