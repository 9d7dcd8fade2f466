"""A kernel's forward and backward passes as one differentiable function."""

import functools
import importlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels.engine.sizes import Gpu, Tpu


class Kernel(NamedTuple):
    """A module with ``forward(*inputs, eps, sizes=)``.

    And with ``backward(*inputs, cotangent, eps, sizes=)``.
    """

    module: str  # dotted name
    sizes: Tpu | Gpu | None

    def load(self) -> Any:
        """The module: Pallas loads only where it is used."""
        return importlib.import_module(self.module)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def fused(kernel: Kernel, eps: Array, *inputs: Array) -> Array:
    """A kernel, whose cotangents its own backward kernel computes.

    Only the inputs are kept for the backward pass. Forward-mode and second derivatives
    need the reference.

    Args:
      kernel: the kernel.
      eps: a scalar, taken as a constant: its cotangent is zero.
      *inputs: arrays.

    Returns:
      What ``forward`` returns.
    """
    return kernel.load().forward(*inputs, eps, sizes=kernel.sizes)


def _forward(kernel, eps, *inputs):
    return fused(kernel, eps, *inputs), (eps, inputs)


def _backward(kernel, residuals, cotangent):
    eps, inputs = residuals
    backward = functools.partial(kernel.load().backward, sizes=kernel.sizes)
    cotangents = backward(*inputs, cotangent, eps)
    narrow = (c.astype(x.dtype) for c, x in zip(cotangents, inputs, strict=True))
    return (jnp.zeros_like(eps), *narrow)


fused.defvjp(_forward, _backward)
