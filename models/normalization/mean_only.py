"""Mean-only batch normalization, the companion of weight normalization."""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.models.normalization.running import batch_axes, by_feature, follow
from gnomon.parameters.trees import compute_dtype


class MeanOnlyBatchNorm(nnx.Module):
    r"""Subtracts the batch mean over every axis but the last, and adds a bias.

    $$y = x - \operatorname{mean}(x) + b, \qquad
      m \leftarrow \beta m + (1 - \beta)\operatorname{mean}(x)$$

    Nothing is divided by: the scale of the activations is left to the weights, whose
    normalization (`gnomon.optimizers.weight_norm`) it complements. Gradients pass
    through the batch mean, so they are centered too, and the noise that the batch adds
    is that of a mean alone. In evaluation the running mean `m`, an `nnx.BatchStat`
    variable, takes the place of the batch's and nothing changes. The layer before needs
    no bias of its own. Means are float32, the result has the input's dtype.

    Args:
      features: length of the last axis.
      momentum: the running mean's decay, beta. Default 0.9.
      param_dtype: dtype of `bias`, which starts at zero. Default float32.
      rngs: unused; here so that every layer is built alike.

    Example:
      >>> import jax.numpy as jnp
      >>> from flax import nnx
      >>> norm = MeanOnlyBatchNorm(1, rngs=nnx.Rngs(0))
      >>> norm(jnp.array([[1.0], [5.0]]), train=True).ravel()
      Array([-2.,  2.], dtype=float32)
      >>> norm.mean[...].round(3)
      Array([0.3], dtype=float32)

    References:
      Salimans & Kingma, Weight Normalization, 2016
      (https://arxiv.org/abs/1602.07868), section 4.

    Differences:
      The authors' layer contains the normalized weights as well; here these are the
      optimizer's.
    """

    def __init__(
        self,
        features: int,
        *,
        momentum: float = 0.9,
        param_dtype: Any = jnp.float32,
        rngs: nnx.Rngs,
    ):
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype))
        self.mean = nnx.BatchStat(jnp.zeros((features,), jnp.float32))
        self.momentum = momentum

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Centers `x` [..., features]; in training, updates the running mean."""
        y = x.astype(compute_dtype(x.dtype))
        if train:
            mean = jnp.mean(y, batch_axes(x))
            follow(self.mean, mean, self.momentum)
        else:
            mean = self.mean[...].astype(y.dtype)
        offset = self.bias[...].astype(y.dtype) - mean
        return (y + by_feature(offset, x)).astype(x.dtype)
