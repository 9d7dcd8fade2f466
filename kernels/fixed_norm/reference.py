"""A step of fixed norm on one leaf: the definition."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.adam.reference import compute_dtype, store
from gnomon.kernels.engine.rows import inverse_root


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


def step(
    w: jax.Array,
    u: jax.Array,
    norm: jax.Array,
    s: Scalars,
    options: Options,
    axes: tuple[int, ...],
    *,
    key: jax.Array | None = None,
) -> jax.Array:
    """One step, see :func:`gnomon.kernels.fixed_norm.step`."""
    dtype = compute_dtype(w.dtype)
    wide, moving, norm = (x.astype(dtype) for x in (w, u, norm))

    def dot(x, y):
        return jnp.sum(x * y, axis=axes, keepdims=True)

    moving = moving * factor(dot(moving, moving), norm, s, options)
    along = jnp.zeros([], dtype)
    if options.tangent:
        along = radial(dot(wide, moving), dot(wide, wide), norm)
    moved = wide * (1 - along) + moving
    return store(restored(moved, norm, axes), w.dtype, key)
