"""FAdam's step as sums over a layer and an update."""

import jax.numpy as jnp

from gnomon.kernels._sweeps import Program, Sweep
from gnomon.kernels.fadam.reference import (
    DIVISOR,
    Options,
    inverse,
    metric,
    next_root,
)


def program(options: Options, length: int) -> Program:
    """The step on layers of ``length`` numbers: ``w``, ``g``, ``m`` and ``root``."""
    moving = ("g", "w") if options.decays else ("g",)

    def measured(blocks, totals, s):
        of = metric(jnp.sqrt(totals[0] / length), s, options)
        root = next_root(blocks["g"], blocks["root"], s)
        return of, root, inverse(root, of, s)

    def squares(blocks, totals, s):
        _, _, per = measured(blocks, totals, s)
        return tuple(jnp.square(blocks[name] * per) for name in moving)

    def update(blocks, totals, s):
        of, root, per = measured(blocks, totals, s)
        natural, *shrinking = (
            blocks[name]
            * (per / DIVISOR[options.clip_rule](of.unit, jnp.sqrt(t / length), s.clip))
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
