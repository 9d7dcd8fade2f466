"""A tree of hundreds of small leaves, and the ways to step it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.kernels import Implementation
from gnomon.optimizers import adamp, apply_fused, bucket_leaves

LEARNING_RATE = 1e-3
HYPERS: dict[str, Any] = dict(b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1)
# AdamW: AdamP's step on leaves without units.
adamw = functools.partial(adamp, LEARNING_RATE, rules=((".*", ()),), **HYPERS)


def draw(blocks: int, seed: int) -> Any:
    """Normal numbers: 64x64 kernels, biases and scales."""
    generator = np.random.default_rng(seed)
    shapes = {"kernel": (64, 64), "bias": (64,), "scale": (64,)}
    return {
        f"block_{i:03}": {
            name: jnp.asarray(generator.normal(size=shape).astype(np.float32))
            for name, shape in shapes.items()
        }
        for i in range(blocks)
    }


def joined(tree: Any, dtype: str = "float32") -> np.ndarray:
    """All numbers of a tree in one vector."""
    leaves = jax.tree.leaves(tree)
    return np.concatenate([np.asarray(x, dtype).reshape(-1) for x in leaves])


class Run:
    """One way to step the tree, in place."""

    def __init__(self, optimizer, params, grads):
        @functools.partial(jax.jit, donate_argnums=(0, 1))
        def step(params, state, grads):
            return apply_fused(optimizer, grads, state, params)

        self.params = jax.tree.map(jnp.copy, params)
        self.state = jax.jit(optimizer.init)(params)
        self.compiled = step.lower(self.params, self.state, grads).compile()

    @property
    def fusions(self) -> int:
        """Loops and calls of the optimized program."""
        lines = self.compiled.as_text().split("ENTRY ")[1].splitlines()
        return sum(" fusion(" in line or " call(" in line for line in lines)

    def step(self, grads):
        """One step; returns what to wait for."""
        self.params, self.state = self.compiled(self.params, self.state, grads)
        return self.params, self.state


def optimizers(kernel: Implementation | None) -> dict[tuple[str, str], Any]:
    """What steps the tree, by how and by whom.

    Args:
      kernel: the kernel to step buckets by as well, or None.
    """
    plain = adamw(implementation="xla")
    ways: dict[tuple[str, str], Any] = {
        ("one by one", "xla"): plain,
        ("in buckets", "xla"): bucket_leaves(plain),
        ("one by one", "optax"): optax.adamw(LEARNING_RATE, **HYPERS),
    }
    if kernel is not None:
        ways["in buckets", kernel] = bucket_leaves(adamw(implementation=kernel))
    return ways


def exact(params: Any, steps: list[Any]) -> np.ndarray:
    """All parameters after some steps of AdamW in float64, by its formula."""
    b1, b2 = HYPERS["b1"], HYPERS["b2"]
    w = joined(params, "float64")
    m, v = np.zeros_like(w), np.zeros_like(w)
    for count, grads in enumerate(steps, start=1):
        g = joined(grads, "float64")
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = m / (1 - b1**count) / (np.sqrt(v / (1 - b2**count)) + HYPERS["eps"])
        w = w - LEARNING_RATE * (p + HYPERS["weight_decay"] * w)
    return w
