"""What the norms over rows share: accumulation, safe roots and their limits."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

# A row is reduced in one piece: on a TPU sixteen of them (one bf16 tile) share a block,
# on a GPU one lies in the registers of 128 threads.
MAX_COLUMNS = {"tpu": 2**14, "gpu": 2**12}

Mean = Callable[[Array], Array]


def wide(dtype: Any) -> Any:
    """The dtype of sums over `dtype`: float64 for itself, float32 for the rest.

    Integers too, which `gnomon.parameters.trees.compute_dtype` has no answer for.
    """
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def inverse_root(power: Array) -> Array:
    """`1 / sqrt(power)`, and zero, with zero derivative, where that is not positive."""
    zero = power <= 0
    return jnp.where(zero, 0, jax.lax.rsqrt(jnp.where(zero, 1, power)))


def normalized(x: Array, scale: Array, eps: Array, mean: Mean) -> Array:
    r"""`scale x / sqrt(mean(x**2) + eps)`, differentiated as the kernels do it.

    $$\dot y = \dot z - n \operatorname{mean}(n \dot z) + n \dot s
      - \tfrac12 r^2 s n \dot\epsilon, \qquad \dot z = s r \dot x, \qquad n = r x$$

    for a scale $s$ and $r = 1 / \sqrt{\operatorname{mean}(x^2) + \epsilon}$ has no
    factor that overflows before $r$ has made it small, as the derivative of the root
    has, so that it is finite, or NaN, where theirs is.

    Args:
      x: numbers of some rows or units.
      scale: one number a row or unit, of size one along it.
      eps: added to the mean of squares.
      mean: over a row, which is kept with size one; a sum will do as well.
    """

    @jax.custom_jvp
    def divided(x, scale, eps):
        return x * inverse_root(mean(x * x) + eps) * scale

    @divided.defjvp
    def tangent(primals, tangents):
        (x, scale, eps), (dx, dscale, deps) = primals, tangents
        inverse = inverse_root(mean(x * x) + eps)
        n = x * inverse
        dz = (scale * inverse) * dx
        dy = dz - n * mean(n * dz) + n * dscale
        return n * scale, dy - n * (scale * (inverse * inverse / 2) * deps)

    return divided(x, scale, eps)


def mean_last(x: Array) -> Array:
    """The mean over the last axis, kept with size one."""
    return jnp.mean(x, axis=-1, keepdims=True)


def along_last(vector: Array, like: Array) -> Array:
    """`vector` [n] in the dtype and rank of `like` [..., n]."""
    return vector.astype(like.dtype).reshape((1,) * (like.ndim - 1) + vector.shape)


def check_vector(name: str, vector: Array, x: Array) -> None:
    """Refuses a scale or a bias that does not fit the last axis."""
    if not x.ndim:
        raise ValueError("x has no axis to normalize over; its shape is ()")
    if vector.shape != x.shape[-1:]:
        raise ValueError(
            f"{name} has shape {vector.shape}; the last axis of x asks for "
            f"{x.shape[-1:]}"
        )


def dtype_refusal(x: Array | jax.ShapeDtypeStruct) -> str | None:
    """Why no kernel takes the dtype of `x`; None if they do."""
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        return f"{x.dtype} is neither float32 nor bfloat16"
    return None


def rows_refusal(
    kernel: str, x: Array | jax.ShapeDtypeStruct, columns: int | None = None
) -> str | None:
    """Why a kernel over whole rows cannot take `x` [..., columns]; None if it can."""
    columns = x.shape[-1] if columns is None else columns
    if columns > MAX_COLUMNS[kernel]:
        return f"rows of {columns} are longer than {MAX_COLUMNS[kernel]}"
    if kernel == "gpu" and columns % 128:
        return f"rows of {columns} do not divide by the 128 threads of a warpgroup"
    return dtype_refusal(x)
