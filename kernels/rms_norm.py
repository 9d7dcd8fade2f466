"""RMSNorm: normalization by the root mean square of a row."""

import functools
from typing import Any

import jax
from jax import Array

from gnomon.kernels.engine.choice import Implementation
from gnomon.kernels.normalization import api

explain = functools.partial(api.explain, "rms_norm")


def rms_norm(
    x: Array,
    scale: Array,
    *,
    eps: jax.typing.ArrayLike = 1e-6,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Array:
    r"""Root-mean-square normalization over the last axis.

    $$y = x / \sqrt{\operatorname{mean}(x^2) + \epsilon} \cdot scale$$

    Sums are float32 (float64 for float64) and the result has the input's dtype. A zero
    row gives zeros, with finite derivatives, even with `eps=0`. A kernel reads `x` once
    and has a backward kernel that reads `x` and the cotangent once; only the reference
    has forward-mode and second derivatives, or one with respect to `eps`.

    Args:
      x: [..., n], of any float dtype for XLA, float32 or bfloat16 for the kernels.
      scale: [n].
      eps: added to the mean of squares. Default 1e-6.
      implementation: "xla", "tpu", "gpu", or None, the default, for what
        :func:`explain` says. Sharded arrays need `jax.shard_map` around a kernel.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Raises:
      ValueError: if `scale` does not fit `x`, or a kernel that is asked for does not
        support them.

    Example:
      >>> import jax.numpy as jnp
      >>> rms_norm(jnp.array([[0.0, -4.0]]), jnp.ones(2)).round(3)
      Array([[ 0.   , -1.414]], dtype=float32)

    References:
      Zhang & Sennrich, Root Mean Square Layer Normalization, 2019
      (https://arxiv.org/abs/1910.07467).
    """
    how: Any = dict(eps=eps, implementation=implementation, fall_back=fall_back)
    return api.normalize("rms_norm", x, scale, **how)
