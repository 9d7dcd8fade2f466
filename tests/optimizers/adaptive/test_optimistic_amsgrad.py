"""Optimistic AMSGrad: its definition, PyTorch's AMSGrad, and steady gradients."""

import jax.numpy as jnp
import numpy as np

from gnomon.optimizers import optimistic_amsgrad
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "optimistic_amsgrad",
        optimistic_amsgrad,
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "floor": 0.1},
        steps=1000,
    ),
)
VERIFIED = {"optimistic_amsgrad": Verified("A16", "NumPy; torch 2.14.1", 1e-12)}


def test_equals_a_numpy_transcription(x64, oracle):
    """With both sequences, and the momentum with the prediction written out."""
    rate, b1, b2, eps, floor = 0.02, 0.8, 0.95, 1e-4, 0.05

    def rule(w, g, memory, t):
        behind = memory.get("behind", w)
        theta, p = memory.get("theta", 0.0), memory.get("p", 0.0)
        h = b1 * theta + (1 - b1) * g
        theta = b1 * theta + (1 - b1) * g
        v = b2 * memory.get("v", 0.0) + (1 - b2) * (g - p) ** 2
        largest = np.maximum(memory.get("largest", 0.0), v)
        s = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        root = np.maximum(np.sqrt(largest), floor) + eps
        behind = behind - s * theta / root
        memory |= dict(behind=behind, theta=theta, p=g, v=v, largest=largest)
        return behind - s * h / root, "all"

    optimizer = optimistic_amsgrad(rate, b1=b1, b2=b2, eps=eps, floor=floor)
    within = VERIFIED["optimistic_amsgrad"].within
    oracle.compare(optimizer, rule, steps=30, atol=within)


def test_without_a_prediction_it_is_amsgrad(recorded):
    """PyTorch's, whose maximum is that of the second moment before its correction."""
    optimizer = optimistic_amsgrad(0.05, b1=0.8, b2=0.95, eps=0.0, predictor="none")
    found = recorded("amsgrad", optimizer)
    assert found <= VERIFIED["optimistic_amsgrad"].within


def test_a_steady_gradient_is_a_surprise_once():
    optimizer, w = optimistic_amsgrad(0.1), jnp.zeros(2)
    g, state = jnp.array([3.0, 1e-4]), optimizer.init(w)
    for _ in range(5):
        _, state = optimizer.update(g, state, w)
        np.testing.assert_allclose(state.largest, 0.001 * g**2, rtol=1e-4)
