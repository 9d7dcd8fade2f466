"""Normalization of rows in plain JAX: what the kernels must agree with."""

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels.engine.rows import along_last, mean_last, normalized, wide


def normalize(
    x: Array, scale: Array, *bias: Array, eps: jax.typing.ArrayLike = 1e-6
) -> Array:
    """Normalized rows, centered first if there is a bias, see `api.normalize`."""
    y = x.astype(wide(x.dtype))
    one = jnp.ones((1,) * y.ndim, y.dtype)
    centered = y - mean_last(y) if bias else y
    y = normalized(centered, one, jnp.asarray(eps, y.dtype), mean_last)
    y = y * along_last(scale, y)
    return sum((along_last(b, y) for b in bias), start=y).astype(x.dtype)
