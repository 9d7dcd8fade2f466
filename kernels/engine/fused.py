"""A kernel's forward and backward passes as one differentiable function."""

import functools
import importlib

import jax
import jax.numpy as jnp
from jax import Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def fused(module: str, eps: Array, *inputs: Array) -> Array:
    """The kernel of ``module``, whose cotangents its own backward kernel computes.

    Only the inputs are kept for the backward pass. Forward-mode and second derivatives
    need the reference.

    Args:
      module: dotted name of a module with ``forward(*inputs, eps)`` and
        ``backward(*inputs, cotangent, eps)``, imported here so that Pallas loads only
        where it is used.
      eps: a scalar, taken as a constant: its cotangent is zero.
      *inputs: arrays.

    Returns:
      What ``forward`` returns.
    """
    return importlib.import_module(module).forward(*inputs, eps)


def _forward(module, eps, *inputs):
    return fused(module, eps, *inputs), (eps, inputs)


def _backward(module, residuals, cotangent):
    eps, inputs = residuals
    cotangents = importlib.import_module(module).backward(*inputs, cotangent, eps)
    narrow = (c.astype(x.dtype) for c, x in zip(cotangents, inputs, strict=True))
    return (jnp.zeros_like(eps), *narrow)


fused.defvjp(_forward, _backward)
