"""Normalization of activations, summed in float32 whatever the compute dtype."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.kernels import Implementation
from gnomon.kernels.layer_norm import explain as layer_norm_choice
from gnomon.kernels.layer_norm import layer_norm
from gnomon.kernels.rms_norm import explain as rms_norm_choice
from gnomon.kernels.rms_norm import rms_norm
from gnomon.models.layers import wide

# Rows that every kernel takes.
PROBE = jax.ShapeDtypeStruct((1, 128), "float32")


class RMSNorm(nnx.Module):
    """Root-mean-square normalization over the last axis.

    $$y = x / \\sqrt{\\operatorname{mean}(x^2) + \\epsilon} \\cdot scale$$

    The mean of squares is taken in float32 and the result has the input's dtype. A
    zero input gives zero.

    Args:
      features: length of the last axis.
      epsilon: added to the mean of squares. Default 1e-6.
      param_dtype: dtype of `scale`, which starts at one. Default float32.
      implementation: "xla", "tpu", "gpu", or None, the default, for what
        `gnomon.kernels.rms_norm.explain` says. XLA takes rows that a kernel does not.
      rngs: unused; here so that every layer is built alike.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> RMSNorm(2, rngs=nnx.Rngs(0))(jnp.array([[0.0, -4.0]])).round(3)
      Array([[ 0.   , -1.414]], dtype=float32)

    References:
      Zhang & Sennrich, Root Mean Square Layer Normalization, 2019
      (https://arxiv.org/abs/1910.07467).
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-6,
        param_dtype: Any = jnp.float32,
        implementation: Implementation | None = None,
        rngs: nnx.Rngs,
    ):
        rms_norm_choice(PROBE, implementation)  # refuses what cannot run
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.epsilon = epsilon
        self.implementation = implementation

    def __call__(self, x: Array) -> Array:
        """Returns `x` [..., features] with unit root mean square, times `scale`."""
        return rms_norm(
            x,
            self.scale[...],
            eps=self.epsilon,
            implementation=self.implementation,
            fall_back=True,
        )


class LayerNorm(nnx.Module):
    """Normalization of mean and variance over the last axis.

    $$y = (x - \\operatorname{mean}(x)) / \\sqrt{\\operatorname{var}(x) + \\epsilon}
      \\cdot scale + bias$$

    Mean and variance (biased, as 1/n) are taken in float32 and the result has the
    input's dtype. A constant input gives the bias.

    Args:
      features: length of the last axis.
      epsilon: added to the variance. Default 1e-6.
      param_dtype: dtype of `scale`, which starts at one, and of `bias`, which starts
        at zero. Default float32.
      implementation: "xla", "tpu", "gpu", or None, the default, for what
        `gnomon.kernels.layer_norm.explain` says. XLA takes rows that a kernel does not.
      rngs: unused; here so that every layer is built alike.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> LayerNorm(2, rngs=nnx.Rngs(0))(jnp.array([[1.0, 3.0]])).round(3)
      Array([[-1.,  1.]], dtype=float32)

    References:
      Ba, Kiros & Hinton, Layer Normalization, 2016 (https://arxiv.org/abs/1607.06450).
    """

    def __init__(
        self,
        features: int,
        *,
        epsilon: float = 1e-6,
        param_dtype: Any = jnp.float32,
        implementation: Implementation | None = None,
        rngs: nnx.Rngs,
    ):
        layer_norm_choice(PROBE, implementation)  # refuses what cannot run
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype))
        self.epsilon = epsilon
        self.implementation = implementation

    def __call__(self, x: Array) -> Array:
        """Returns `x` [..., features] normalized, times `scale`, plus `bias`."""
        return layer_norm(
            x,
            self.scale[...],
            self.bias[...],
            eps=self.epsilon,
            implementation=self.implementation,
            fall_back=True,
        )


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
        y = x.astype(wide(x.dtype))
        if train:
            axes = tuple(range(x.ndim - 1))
            mean, var = jnp.mean(y, axes), jnp.var(y, axes)
            for running, batch in ((self.mean, mean), (self.var, var)):
                kept = self.momentum * running[...]
                running[...] = kept + (1 - self.momentum) * batch.astype(kept.dtype)
        else:
            mean, var = (stat[...].astype(y.dtype) for stat in (self.mean, self.var))
        shape = (1,) * (x.ndim - 1) + mean.shape
        scale = self.scale[...].astype(y.dtype) * jax.lax.rsqrt(var + self.epsilon)
        bias = self.bias[...].astype(y.dtype) - mean * scale
        return (y * scale.reshape(shape) + bias.reshape(shape)).astype(x.dtype)
