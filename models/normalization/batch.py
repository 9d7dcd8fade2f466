"""Batch normalization."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.models.normalization.running import batch_axes, by_feature, follow
from gnomon.parameters.trees import compute_dtype


class BatchNorm(nnx.Module):
    r"""Batch normalization over every axis but the last.

    In training it normalizes by the batch's mean and variance and moves the running
    statistics, `nnx.BatchStat` variables, toward them:

    $$m \leftarrow \beta m + (1 - \beta)\,\mathrm{mean}(x), \qquad
      v \leftarrow \beta v + (1 - \beta)\,\mathrm{var}(x)$$

    In evaluation it normalizes by the running statistics and changes nothing. Means
    and variances are float32 (the variance biased, as 1/n), the result has the
    input's dtype.

    Args:
      features: length of the last axis.
      momentum: the running statistics' decay, beta. Default 0.9.
      epsilon: added to the variance. Default 1e-5.
      param_dtype: dtype of `scale` and `bias`. Default float32.
      rngs: unused; here so that every layer is built alike.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> norm = BatchNorm(1, rngs=nnx.Rngs(0))
      >>> norm(jnp.array([[1.0], [3.0]]), train=True).ravel().round(3)
      Array([-1.,  1.], dtype=float32)
      >>> norm.mean[...].round(3)
      Array([0.2], dtype=float32)

    References:
      Ioffe & Szegedy, Batch Normalization, 2015 (https://arxiv.org/abs/1502.03167).
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.9,
        epsilon: float = 1e-5,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.var = nnx.BatchStat(jnp.ones((features,), jnp.float32))
        self.momentum = momentum
        self.epsilon = epsilon

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Normalizes `x` [..., features]; in training, updates the statistics."""
        y = x.astype(compute_dtype(x.dtype))
        if train:
            axes = batch_axes(x)
            mean, var = jnp.mean(y, axes), jnp.var(y, axes)
            follow(self.mean, mean, self.momentum)
            follow(self.var, var, self.momentum)
        else:
            mean, var = (stat[...].astype(y.dtype) for stat in (self.mean, self.var))
        scale = self.scale[...].astype(y.dtype) * jax.lax.rsqrt(var + self.epsilon)
        bias = self.bias[...].astype(y.dtype) - mean * scale
        return (y * by_feature(scale, x) + by_feature(bias, x)).astype(x.dtype)
