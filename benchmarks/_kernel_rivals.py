"""What kernels are timed against: a copy, optax's AdamW and torch's fused one."""

import functools
import importlib.util
import types
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

Call = Callable[[], Any]


def copy(nbytes: int, seed: int) -> Call:
    """Reads so many bytes, and writes as many, in one call."""
    words = jax.random.bits(jax.random.key(seed), (-(-nbytes // 4),), "uint32")
    # Adding an unknown one: a plain copy is a call that XLA can leave out.
    add, one = jax.jit(lambda words, one: words + one), jnp.ones([], words.dtype)
    return lambda: add(words, one)


def optax_adamw(
    params: jax.Array, grads: jax.Array, *, learning_rate: float, weight_decay: float
) -> Call:
    """`optax.adamw` on one leaf, under jit with donation."""
    optimizer = optax.adamw(learning_rate, weight_decay=weight_decay)

    @functools.partial(jax.jit, donate_argnums=(0, 1))
    def step(params, state, grads):
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    moving = [params, jax.jit(optimizer.init)(params)]

    def call():
        moving[:] = step(*moving, grads)
        return moving

    return call


def torch_adamw(
    shapes: Sequence[tuple[int, ...]], *, learning_rate: float, weight_decay: float
) -> Call | None:
    """torch's fused AdamW on float32 leaves of some shapes, on the device JAX uses.

    Args:
      shapes: of the leaves.
      learning_rate: step size.
      weight_decay: decoupled weight decay.

    Returns:
      The call; None where torch is not installed or does not reach the device: a step
      on the CPU beside an accelerator's would be no comparison.
    """
    platform = jax.default_backend()
    if platform == "tpu" or importlib.util.find_spec("torch") is None:
        return None
    import torch

    if platform == "gpu" and not torch.cuda.is_available():
        return None
    device = "cuda" if platform == "gpu" else "cpu"
    weights = [torch.randn(shape, device=device) for shape in shapes]
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer = torch.optim.AdamW(
        weights, lr=learning_rate, weight_decay=weight_decay, fused=True
    )
    wait = torch.cuda.synchronize if platform == "gpu" else lambda: None

    def call():
        optimizer.step()
        return types.SimpleNamespace(block_until_ready=wait)

    return call
