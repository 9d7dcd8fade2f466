"""Shampoo: NumPy, safe roots, and sides."""

import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.optimizers import shampoo
from gnomon.optimizers.matrix.shampoo import inverse_root
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "shampoo",
        shampoo,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "damping": 1e-5,
            "every": 2.0,
            "weight_decay": 1e-6,
        },
    ),
)
LAYERS = {"shampoo": lambda **s: shampoo(0.1, every=2, weight_decay=0.1, **s)}
VERIFIED = {"shampoo": Verified("", "NumPy", 1e-9)}


def root(matrix, power, damping):
    values, vectors = np.linalg.eigh(matrix)
    return vectors @ np.diag((values + damping * values.max()) ** power) @ vectors.T


@pytest.mark.parametrize("graft", ["adam", "none"])
@pytest.mark.parametrize("sides", ["both", "smaller"])
def test_equals_a_numpy_transcription(x64, oracle, sides, graft):
    """The oracle has a unit a row: outputs on the left."""
    rate, b1, b2, eps, damping, every = 0.02, 0.8, 0.9, 1e-3, 0.1, 3

    def rule(w, g, memory, t):
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
        m, whole = m / (1 - b1**t), 1 - b2**t
        adam = m / (np.sqrt(v / whole) + eps)
        if w.ndim < 2:
            return w - rate * adam, "free"
        outer = {"left": g @ g.T, "right": g.T @ g}
        for side, product in outer.items():
            memory[side] = b2 * memory.get(side, 0.0) + (1 - b2) * product
        if (t - 1) % every == 0:
            power = -0.25 if sides == "both" else -0.5
            memory["roots"] = [
                root(memory[side] / whole, power, damping) for side in outer
            ]
        left, right = memory["roots"]
        if sides == "both":
            d = left @ m @ right
        else:  # of a square matrix the inputs, which are on the right here
            d = left @ m if len(left) < len(right) else m @ right
        if graft == "adam":
            d = d * np.linalg.norm(adam) / np.linalg.norm(d)
        return w - rate * d, "whitened"

    given = dict(b1=b1, b2=b2, eps=eps, damping=damping, every=every)
    optimizer = shampoo(
        *(rate,), sides=sides, graft=graft, matrices=True, stacked="^blocks/", **given
    )
    # Later gradients are zero at times, and the direction is that of rounding.
    seen = oracle.compare(optimizer, rule, steps=18, atol=VERIFIED["shampoo"].within)
    assert set(seen) == {"free", "whitened"}


def test_roots_are_safe_for_any_scale_and_rank():
    matrix = jnp.array([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    for scale in (1e-30, 1.0, 1e30):
        found = inverse_root(scale * matrix, -0.5, 0.0)
        wanted = np.diag([2**-0.5, 1.0, 0.0]) * scale**-0.5
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6 * scale**-0.5)
    assert not inverse_root(jnp.zeros((2, 2)), -0.5, 1e-6).any()
    damped = inverse_root(matrix, -0.5, 0.5)
    np.testing.assert_allclose(damped[2, 2], 1.0, rtol=1e-6)
