"""RMSNorm in plain JAX: what the kernels must agree with."""

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels._rows import along_last, inverse_root, wide


def rms_norm(x: Array, scale: Array, eps: jax.typing.ArrayLike = 1e-6) -> Array:
    """Root-mean-square normalization over the last axis, see `api.rms_norm`."""
    y = x.astype(wide(x.dtype))
    power = jnp.mean(jnp.square(y), axis=-1, keepdims=True)
    y = y * inverse_root(power + jnp.asarray(eps, y.dtype))
    return (y * along_last(scale, y)).astype(x.dtype)
