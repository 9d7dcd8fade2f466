"""Adam's step, and AdamP's last pass, as an update of what a block holds."""

import jax.numpy as jnp

from gnomon.kernels.adam.reference import direction
from gnomon.kernels.engine.program import Program, Sweep


def program(*, nesterov: bool, units: bool = False, whole: bool = False) -> Program:
    """The step on arrays ``w``, ``g``, ``m`` and ``v``.

    Args:
      nesterov: look ahead by one step of momentum.
      units: whether every unit has a coefficient of ``w``, ``decay``, in place of the
        weight decay.
      whole: whether every unit also has a ``factor`` on its inner product with Adam's
        direction, to take off that coefficient.

    Returns:
      The program, which sums only if ``whole``.
    """
    reads = ("w", "g", "m", "v")

    def moved(blocks, s):
        return direction(blocks["g"], blocks["m"], blocks["v"], s, nesterov)

    def products(blocks, totals, s):
        return (moved(blocks, s)[0] * blocks["w"],)

    def update(blocks, totals, s):
        p, m, v = moved(blocks, s)
        decay = blocks["decay"] if units else s.weight_decay
        if whole:
            factor = blocks["factor"]
            # A unit that is not projected has nothing to do with its inner product,
            # which need not be finite.
            decay = decay - jnp.where(factor == 0, 0, factor * totals[0])
        w = blocks["w"]
        return {"w": w - s.learning_rate * (p + decay * w), "m": m, "v": v}

    sweeps = (Sweep(reads, 1, products),) if whole else ()
    return Program("adamp" if units else "adam", sweeps, update, ("w", "m", "v"))
