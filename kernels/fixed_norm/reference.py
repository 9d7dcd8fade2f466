"""A step of fixed norm on one leaf: the definition."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels._rows import inverse_root
from gnomon.kernels.adam.reference import compute_dtype, store


class Scalars(NamedTuple):
    """What one step shares between all numbers of a leaf, traced or not."""

    rate: Any  # factor on the update
    angle: Any  # length of the update over the norm, in place of the rate


class Options(NamedTuple):
    """What of a step is not a number."""

    turns: bool  # whether the angle sets the length of the update
    tangent: bool  # whether the update loses its part along the weight


def factor(uu: jax.Array, norm: jax.Array, s: Scalars, options: Options) -> jax.Array:
    """What to scale an update of squared norm ``uu`` by; the rate where norm is 0."""
    if not options.turns:
        return s.rate + jnp.zeros_like(uu)
    return jnp.where(norm > 0, s.angle * norm * inverse_root(uu), s.rate)


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
    if options.tangent:
        square = dot(wide, wide)
        # A unit without a norm to keep is free, its radial part with it.
        bound = (square > 0) & (norm > 0)
        inverse = jnp.where(bound, 1 / jnp.where(bound, square, 1), 0)
        moving = moving - wide * (dot(wide, moving) * inverse)
    moved = wide + moving
    to = norm * inverse_root(dot(moved, moved))
    return store(moved * jnp.where(norm > 0, to, 1), w.dtype, key)
