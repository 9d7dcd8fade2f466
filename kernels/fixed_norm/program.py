r"""A step of fixed norm as sums over a unit and an update.

A point that is known from the start, :math:`w + \rho u`, is squared as it is summed.
Others hang on sums of their own. From :math:`\|w\|^2`, :math:`\langle w, v \rangle` and
:math:`\|v\|^2` their norm is known too, but loses its digits where they nearly cancel,
or where the squares underflow; there the point itself is squared, in one more sweep.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.engine.program import Program, Sweep
from gnomon.kernels.engine.rows import inverse_root

# Of the squares of weight and update, the share that has to be left of their sum.
SHARE = 0.25
# A square below the least normal number, 1.2e-38, is lost; so is a sum of 1e8 of them,
# to rounding, where what is left is larger than this.
LEAST = 1e-24


class Scalars(NamedTuple):
    """What one step shares between all numbers of a leaf, traced or not."""

    rate: Any  # factor on the update
    angle: Any  # length of the update over the norm, in place of the rate


class Options(NamedTuple):
    """What of a step is not a number."""

    turns: bool  # whether the angle sets the length of the update
    tangent: bool  # whether the update loses its part along the weight


def has_norm(norm: jax.Array) -> jax.Array:
    """Whether a norm is one that a unit can be given: not 0, its square finite."""
    return (norm > 0) & (norm * norm < jnp.inf)


def factor(uu: jax.Array, norm: jax.Array, s: Scalars, options: Options) -> jax.Array:
    """What to scale an update of squared norm ``uu`` by; the rate where norm is 0."""
    if not options.turns:
        return s.rate + jnp.zeros_like(uu)
    return jnp.where(has_norm(norm), s.angle * norm * inverse_root(uu), s.rate)


def radial(dot: jax.Array, square: jax.Array, norm: jax.Array) -> jax.Array:
    """The part of ``w`` in an update, from ``<w, v>`` and ``|w|^2``.

    Nothing of a unit that is zero, or whose square overflows and the product may too,
    or that has no norm to keep and so is free.
    """
    divides = (square > 0) & (square < jnp.inf) & (norm > 0)
    return jnp.where(divides, dot * (1 / jnp.where(divides, square, 1)), 0)


def to_norm(square: jax.Array, norm: jax.Array) -> jax.Array:
    """What to scale a unit of squared norm ``square`` by.

    It is 1, and the norm is not restored, where there is none to restore: where
    ``norm`` is 0, and where its square or the unit's overflows.
    """
    restores = has_norm(norm) & (square != jnp.inf)
    return jnp.where(restores, norm * inverse_root(square), 1)


def restored(moved: jax.Array, norm: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """Units over ``axes``, in the dtype to compute in, with given norms."""
    square = jnp.sum(moved * moved, axis=axes, keepdims=True)
    return moved * to_norm(square, norm)


def program(options: Options) -> Program:
    """The step; arrays ``w`` and ``u``, and ``norm`` with one number a unit."""
    hangs_on_sums = options.turns or options.tangent

    def added(blocks, s):
        return blocks["u"] if options.turns else s.rate * blocks["u"]

    def products(blocks, totals, s):
        w, v = blocks["w"], added(blocks, s)
        # The last tells an update that is not finite from one whose square overflows.
        return w * w, w * v, v * v, v * 0

    def parts(units, totals, s):
        """The factor on what is added, its product with ``w``, its part along it."""
        ww, wv, vv, nothing = totals[:4]
        norm = units["norm"]
        scale = factor(vv, norm, s, options) if options.turns else jnp.ones_like(vv)
        dot = jnp.where(scale == 0, nothing, scale * wv)
        along = radial(dot, ww, norm) if options.tangent else jnp.zeros_like(ww)
        return scale, dot, along

    def moved(blocks, totals, s):
        if not hangs_on_sums:
            return blocks["w"] + added(blocks, s)
        scale, _, along = parts(blocks, totals, s)
        return blocks["w"] * (1 - along) + added(blocks, s) * scale

    def squares(blocks, totals, s):
        return (jnp.square(moved(blocks, totals, s)),)

    def composed(units, totals, s):
        """The square of the point from those of its parts, and where it holds."""
        ww, _, vv, _ = totals[:4]
        scale, dot, along = parts(units, totals, s)
        # By a root that does not overflow where the factor is large.
        both = ww + jnp.square(scale * jnp.sqrt(vv))
        square = both - along * dot if options.tangent else both + 2 * dot
        normal = (both >= LEAST * (1 + scale * scale)) & (both < jnp.inf)
        free = ~has_norm(units["norm"])
        return (square,), free | (normal & (square > SHARE * both))

    def update(blocks, totals, s):
        return {"w": moved(blocks, totals, s) * to_norm(totals[-1], blocks["norm"])}

    reads = ("w", "u")
    sweeps = (
        (Sweep(reads, 4, products), Sweep(reads, 1, squares, composed))
        if hangs_on_sums
        else (Sweep(reads, 1, squares),)
    )
    return Program("fixed_norm", sweeps, update, writes=("w",))
