"""A step and the rescaling of a wide layer, as two sums and an update."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.engine.program import Program, Sweep


class Scalars(NamedTuple):
    """What one step shares between all numbers of a leaf, traced or not."""

    ratio: Any  # how far above the target a deviation may be


def rescaled(
    x: jax.Array, mean: jax.Array, spread: jax.Array, target: jax.Array, s: Scalars
) -> jax.Array:
    """``x``, with the deviation ``target`` in place of ``spread`` if that is wide."""
    wide = spread > s.ratio * target
    factor = jnp.where(wide, target / jnp.where(spread > 0, spread, 1), 1)
    # A layer that is not wide stays as it is, even where its mean is no number.
    return x * factor + jnp.where(wide, mean * (1 - factor), 0)


def program(length: int) -> Program:
    """The step on layers of ``length`` numbers; arrays ``w``, ``u``, unit ``target``.

    The mean comes before the squares, which are small differences otherwise.
    """

    def moved(blocks):
        return blocks["w"] + blocks["u"]

    def squares(blocks, totals, s):
        return (jnp.square(moved(blocks) - totals[0] / max(length, 1)),)

    def update(blocks, totals, s):
        mean = totals[0] / max(length, 1)
        spread = jnp.sqrt(totals[1] / max(length - 1, 1))
        return {"w": rescaled(moved(blocks), mean, spread, blocks["target"], s)}

    reads = ("w", "u")
    sweeps = (
        Sweep(reads, 1, lambda blocks, totals, s: (moved(blocks),)),
        Sweep(reads, 1, squares),
    )
    return Program("variance", sweeps, update, ("w",))
