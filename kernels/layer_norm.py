"""LayerNorm: normalization of mean and variance of a row."""

import functools
from typing import Any

import jax
from jax import Array

from gnomon.kernels.engine.choice import Implementation
from gnomon.kernels.normalization import api

explain = functools.partial(api.explain, "layer_norm")


def layer_norm(
    x: Array,
    scale: Array,
    bias: Array,
    *,
    eps: jax.typing.ArrayLike = 1e-6,
    implementation: Implementation | None = None,
    fall_back: bool = False,
) -> Array:
    r"""Normalization of mean and variance over the last axis.

    $$y = \frac{x - \operatorname{mean}(x)}
                {\sqrt{\operatorname{var}(x) + \epsilon}} \cdot scale + bias$$

    The variance is biased and taken around the mean in a second sum, so that a large
    mean does no harm. Sums are float32 (float64 for float64) and the result has the
    input's dtype. A constant row gives the bias, with finite derivatives, even with
    `eps=0`. A kernel reads `x` once and has a backward kernel that reads `x` and the
    cotangent once; only the reference has forward-mode and second derivatives, or one
    with respect to `eps`.

    Args:
      x: [..., n], of any float dtype for XLA, float32 or bfloat16 for the kernels.
      scale: [n].
      bias: [n].
      eps: added to the variance. Default 1e-6.
      implementation: "xla", "tpu", "gpu", or None, the default, for what
        :func:`explain` says. Sharded arrays need `jax.shard_map` around a kernel.
      fall_back: whether XLA takes what the named kernel does not support, in place of
        an error. Default False.

    Raises:
      ValueError: if `scale` or `bias` does not fit `x`, or a kernel that is asked for
        does not support them.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[1.0, 3.0]])
      >>> layer_norm(x, jnp.ones(2), jnp.array([0.0, 4.0])).round(3)
      Array([[-1.,  5.]], dtype=float32)

    References:
      Ba, Kiros & Hinton, Layer Normalization, 2016 (https://arxiv.org/abs/1607.06450).
    """
    how: Any = dict(eps=eps, implementation=implementation, fall_back=fall_back)
    return api.normalize("layer_norm", x, scale, bias, **how)
