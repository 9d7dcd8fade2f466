"""Layer normalization."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.kernels import Implementation
from gnomon.kernels.layer_norm import explain, layer_norm

# Rows that every kernel takes.
PROBE = jax.ShapeDtypeStruct((1, 128), "float32")


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
      >>> LayerNorm(2, rngs=nnx.Rngs(0))(jnp.array([[1.0, 3.0]]), train=False).round(3)
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
        explain(PROBE, implementation)  # refuses what cannot run
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.bias = nnx.Param(jnp.zeros((features,), param_dtype))
        self.epsilon = epsilon
        self.implementation = implementation

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `x` [..., features] normalized, times `scale`, plus `bias`."""
        return layer_norm(
            x,
            self.scale[...],
            self.bias[...],
            eps=self.epsilon,
            implementation=self.implementation,
            fall_back=True,
        )
