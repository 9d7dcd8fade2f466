"""Root-mean-square normalization."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from gnomon.kernels import Implementation
from gnomon.kernels.rms_norm import explain, rms_norm

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
      >>> RMSNorm(2, rngs=nnx.Rngs(0))(jnp.array([[0.0, -4.0]]), train=False).round(3)
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
        explain(PROBE, implementation)  # refuses what cannot run
        self.scale = nnx.Param(jnp.ones((features,), param_dtype))
        self.epsilon = epsilon
        self.implementation = implementation

    def __call__(self, x: Array, *, train: bool) -> Array:
        """Returns `x` [..., features] with unit root mean square, times `scale`."""
        return rms_norm(
            x,
            self.scale[...],
            eps=self.epsilon,
            implementation=self.implementation,
            fall_back=True,
        )
