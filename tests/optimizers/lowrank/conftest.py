"""Matrices of all kinds, beside which a method is written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

RATE = 0.05


def adam(g, memory, t, b1, b2):
    """Adam's direction, with its moments in a dict."""
    memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
    memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
    return memory["m"] / (1 - b1**t) / np.sqrt(memory["v"] / (1 - b2**t))


def leading(x, rank):
    """Left singular vectors, the largest entry of each positive."""
    vectors = np.linalg.svd(x)[0][:, :rank]
    largest = np.abs(vectors).argmax(0)
    return vectors * np.sign(vectors[largest, np.arange(rank)])


@pytest.fixture
def beside(x64):
    """The largest difference from a rule in NumPy, along a run in float64.

    ``beside(direction, rule)``: ``rule(x, memory, t)`` is the direction of one matrix,
    whose first axis is the shorter side, or of a vector; the memory is its own.
    """
    shapes = {
        "tall": {"kernel": (4, 3)},
        "square": {"kernel": (3, 3)},
        "blocks": {"stacked": {"kernel": (2, 3, 4)}},
        "bias": (3,),
    }
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    generator = np.random.default_rng(0)
    start = jax.tree.map(
        lambda shape: generator.normal(size=shape), shapes, is_leaf=is_shape
    )

    def check(direction, rule, steps=12):
        optimizer = optax.chain(direction, optax.scale(-RATE))
        params = jax.tree.map(jnp.asarray, start)
        state, update = optimizer.init(params), jax.jit(optimizer.update)
        leaves, treedef = jax.tree.flatten(start)
        memory = [[{}, {}] for _ in leaves]
        noise = np.random.default_rng(1)
        for t in range(1, steps + 1):
            drawn = [noise.normal(size=w.shape) for w in leaves]
            grads = jax.tree.map(
                lambda w, d: 0.3 * w + d, params, treedef.unflatten(drawn)
            )
            updates, state = update(grads, state, params)
            params = optax.apply_updates(params, updates)
            for i, (w, d) in enumerate(zip(leaves, drawn, strict=True)):
                g = 0.3 * w + d
                layers = g if w.ndim == 3 else g[None]
                moved = []
                for layer, own in zip(layers, memory[i], strict=False):
                    turned = layer.ndim == 2 and layer.shape[0] > layer.shape[1]
                    u = rule(layer.T if turned else layer, own, t)
                    moved.append(u.T if turned else u)
                leaves[i] = w - RATE * np.reshape(moved, w.shape)
        found = jax.tree.leaves(params)
        return max(
            float(np.abs(a - b).max()) for a, b in zip(found, leaves, strict=True)
        )

    return check


@pytest.fixture
def numpy_rules():
    """What the rules of several methods are made of."""
    return adam, leading
