"""LayerNorm in plain JAX: what the kernels must agree with."""

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels._rows import along_last, inverse_root, wide


def layer_norm(
    x: Array, scale: Array, bias: Array, eps: jax.typing.ArrayLike = 1e-6
) -> Array:
    """Normalization of mean and variance over the last axis, see `api.layer_norm`."""
    y = x.astype(wide(x.dtype))
    y = y - jnp.mean(y, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y = y * inverse_root(variance + jnp.asarray(eps, y.dtype))
    return (y * along_last(scale, y) + along_last(bias, y)).astype(x.dtype)
