"""LayerNorm in plain JAX: what the kernels must agree with."""

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels.engine.rows import along_last, mean_last, normalized, wide


def layer_norm(
    x: Array, scale: Array, bias: Array, eps: jax.typing.ArrayLike = 1e-6
) -> Array:
    """Normalization of mean and variance over the last axis, see `api.layer_norm`."""
    y = x.astype(wide(x.dtype))
    one = jnp.ones((1,) * y.ndim, y.dtype)
    y = normalized(y - mean_last(y), one, jnp.asarray(eps, y.dtype), mean_last)
    return (y * along_last(scale, y) + along_last(bias, y)).astype(x.dtype)
