"""A step and the rescaling of a wide layer: the definition."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.adam.reference import compute_dtype, store


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


def step(
    w: jax.Array,
    u: jax.Array,
    target: jax.Array,
    s: Scalars,
    axes: tuple[int, ...],
    *,
    key: jax.Array | None = None,
) -> jax.Array:
    """One step, see :func:`gnomon.kernels.variance.step`."""
    dtype = compute_dtype(w.dtype)
    x = w.astype(dtype) + u.astype(dtype)
    length = math.prod(w.shape[axis] for axis in axes)
    mean = jnp.sum(x, axis=axes, keepdims=True) / max(length, 1)
    square = jnp.sum(jnp.square(x - mean), axis=axes, keepdims=True)
    spread = jnp.sqrt(square / max(length - 1, 1))
    return store(rescaled(x, mean, spread, target.astype(dtype), s), w.dtype, key)
