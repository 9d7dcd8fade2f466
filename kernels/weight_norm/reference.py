"""Weight normalization in plain JAX: what the kernels must agree with."""

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels.engine.rows import normalized, wide


def weight_norm(
    v: Array,
    g: Array,
    axis: int | tuple[int, ...],
    eps: jax.typing.ArrayLike = 1e-8,
) -> Array:
    """`g v / sqrt(|v|^2 + eps)` by unit, see `api.weight_norm`."""
    wider = v.astype(wide(v.dtype))
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    inside = {a % v.ndim for a in axes}

    def total(x):
        return jnp.sum(x, axis=axes, keepdims=True)

    per_unit = [1 if a in inside else n for a, n in enumerate(v.shape)]
    g = g.astype(wider.dtype).reshape(per_unit)
    return normalized(wider, g, jnp.asarray(eps, wider.dtype), total).astype(v.dtype)
