"""Normalization of rows by XLA or by a kernel."""

import functools
import math

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels.engine.choice import Choice, Implementation, choose
from gnomon.kernels.engine.fused import Kernel, fused
from gnomon.kernels.engine.rows import check_vector, rows_refusal
from gnomon.kernels.engine.sizes import sized
from gnomon.kernels.normalization import reference


def normalize(
    op: str,
    x: Array,
    scale: Array,
    *bias: Array,
    eps: jax.typing.ArrayLike,
    implementation: Implementation | None,
    fall_back: bool,
) -> Array:
    """Normalized rows, times a scale; with a bias they are centered first.

    Args:
      op: name of the operation.
      x: [..., n].
      scale: [n].
      *bias: [n], or nothing.
      eps: added to the mean of squares.
      implementation: see :func:`gnomon.kernels.rms_norm.rms_norm`, as all the others.
      fall_back: whether XLA takes what the named kernel does not support.

    Returns:
      An array like ``x``.
    """
    for name, vector in zip(("scale", "bias"), (scale, *bias), strict=False):
        check_vector(name, vector, x)
    chosen = explain(op, x, implementation, fall_back=fall_back).implementation
    if chosen == "xla":
        return reference.normalize(x, scale, *bias, eps=eps)
    kernel = Kernel(f"{__package__}.{chosen}", sized(implementation, chosen))
    rows = x.reshape(-1, x.shape[-1])
    # Of any dtype: a kernel reads them in float32.
    vectors = [v.astype(jnp.float32) for v in (scale, *bias)]
    y = fused(kernel, jnp.asarray(eps, jnp.float32), rows, *vectors)
    return y.reshape(x.shape)


def explain(
    op: str,
    x: Array | jax.ShapeDtypeStruct,
    implementation: Implementation | None = None,
    *,
    fall_back: bool = False,
) -> Choice:
    """What an operation runs for such an ``x``, and why.

    Example:
      >>> explain("rms_norm", jnp.ones((8, 128)), "tpu")
      Choice(implementation='tpu', reason='asked for')
    """
    refusal = functools.partial(rows_refusal, x=x)
    empty = not math.prod(x.shape)
    return choose(op, implementation, refusal, fall_back=fall_back, empty=empty)
