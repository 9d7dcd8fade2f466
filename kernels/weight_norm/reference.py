"""Weight normalization in plain JAX: what the kernels must agree with."""

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels._rows import inverse_root, wide


def weight_norm(
    v: Array,
    g: Array,
    axis: int | tuple[int, ...],
    eps: jax.typing.ArrayLike = 1e-8,
) -> Array:
    """`g v / sqrt(|v|^2 + eps)` by unit, see `api.weight_norm`."""
    wider = v.astype(wide(v.dtype))
    squared = jnp.sum(jnp.square(wider), axis=axis, keepdims=True)
    inverse = inverse_root(squared + jnp.asarray(eps, wider.dtype))
    g = g.astype(wider.dtype).reshape(inverse.shape)
    return (wider * (g * inverse)).astype(v.dtype)
