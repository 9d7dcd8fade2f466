"""What the norms over rows share: accumulation, safe roots and their limits."""

import math
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
    """The dtype of sums over `dtype`: float64 for itself, float32 for the rest."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def inverse_root(power: Array) -> Array:
    """`1 / sqrt(power)`, and zero, with zero derivative, where it is not positive."""
    positive = power > 0
    return jnp.where(positive, jax.lax.rsqrt(jnp.where(positive, power, 1)), 0)


def along_last(vector: Array, like: Array) -> Array:
    """`vector` [n] in the dtype and rank of `like` [..., n]."""
    return vector.astype(like.dtype).reshape((1,) * (like.ndim - 1) + vector.shape)


def check_vector(name: str, vector: Array, x: Array) -> None:
    """Refuses a scale or a bias that does not fit the last axis."""
    if vector.shape != x.shape[-1:]:
        raise ValueError(
            f"{name} has shape {vector.shape}; the last axis of x asks for "
            f"{x.shape[-1:]}"
        )


def dtype_refusal(x: Array | jax.ShapeDtypeStruct) -> str | None:
    """Why no kernel takes the dtype or the size of `x`; None if they do."""
    if x.dtype not in (jnp.float32, jnp.bfloat16):
        return f"{x.dtype} is neither float32 nor bfloat16"
    if not math.prod(x.shape):
        return "there is nothing to do"
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
