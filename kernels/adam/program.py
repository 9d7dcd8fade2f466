"""Adam's step, with decoupled weight decay, and the last one of AdamP."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.companding import Coded
from gnomon.kernels.engine.program import Program, Sweep


class Moved(NamedTuple):
    """One leaf after a step."""

    w: jax.Array  # the parameter
    m: jax.Array | Coded  # the first moment, perhaps in int8 codes
    v: jax.Array | Coded  # the second moment, perhaps in uint8 codes


class Scalars(NamedTuple):
    """What one step shares between all numbers of a leaf, traced or not."""

    learning_rate: Any
    b1: Any
    one_minus_b1: Any
    b2: Any
    one_minus_b2: Any
    correction: Any  # (1 - b1**count) / sqrt(1 - b2**count)
    floor: Any  # eps, of the root before its correction
    eps: Any
    weight_decay: Any


def scalars(dtype, *, learning_rate, b1, b2, eps, weight_decay, count) -> Scalars:
    """The scalars of one step, in the dtype to compute in.

    Args:
      dtype: the dtype.
      learning_rate: step size.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the denominator after bias correction.
      weight_decay: decoupled weight decay, per learning rate.
      count: steps taken, this one included, from 1.

    Returns:
      The scalars.
    """
    rate, beta1, beta2, epsilon, decay, t = (
        jnp.asarray(x).astype(dtype)
        for x in (learning_rate, b1, b2, eps, weight_decay, count)
    )
    root = jnp.sqrt(1 - beta2**t)
    return Scalars(
        rate,
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        (1 - beta1**t) / jnp.where(root > 0, root, 1),
        epsilon * root,
        epsilon,
        decay,
    )


def direction(
    g: jax.Array, m: jax.Array, v: jax.Array, s: Scalars, nesterov: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adam's direction and the new moments, all in one dtype.

    Both corrections are factors of the whole denominator, which saves every number a
    division and its overflow. Where the denominator is zero there is no direction.
    """
    m = s.b1 * m + s.one_minus_b1 * g
    v = s.b2 * v + s.one_minus_b2 * (g * g)
    first = s.b1 * m + s.one_minus_b1 * g if nesterov else m
    denominator = s.correction * (jnp.sqrt(v) + s.floor)
    zero = denominator == 0
    return jnp.where(zero, 0, first / jnp.where(zero, 1, denominator)), m, v


def program(*, nesterov: bool, pulled: bool = False, projects: bool = False) -> Program:
    """The step on arrays ``w``, ``g``, ``m`` and ``v``.

    Args:
      nesterov: look ahead by one step of momentum.
      pulled: whether every unit has a coefficient of ``w``, ``decay``, in place of the
        weight decay.
      projects: whether every unit also has a ``square`` to divide its inner product
        with Adam's direction by, and take off that coefficient; 0 for nothing.

    Returns:
      The program, which sums only if it ``projects``.
    """

    def moved(blocks, s):
        return direction(blocks["g"], blocks["m"], blocks["v"], s, nesterov)

    def products(blocks, totals, s):
        return (moved(blocks, s)[0] * blocks["w"],)

    def update(blocks, totals, s):
        p, m, v = moved(blocks, s)
        decay = blocks["decay"] if pulled else s.weight_decay
        if projects:
            square = blocks["square"]
            # A unit that is not projected has nothing to do with its inner product,
            # which need not be finite.
            radial = totals[0] / jnp.where(square > 0, square, 1)
            decay = decay - jnp.where(square > 0, radial, 0)
        w = blocks["w"]
        return {"w": w - s.learning_rate * (p + decay * w), "m": m, "v": v}

    sweeps = (Sweep(("w", "g", "m", "v"), 1, products),) if projects else ()
    return Program("adamp" if pulled else "adam", sweeps, update, ("w", "m", "v"))
