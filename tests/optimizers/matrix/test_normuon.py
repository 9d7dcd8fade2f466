"""NorMuon: a published port, and what levelling does and leaves alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.optimizers import normuon, scale_by_neuron_rms
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "normuon",
        normuon,
        {"learning_rate": 0.01, "momentum": 0.9, "b2": 0.95, "weight_decay": 1e-6},
        {"keep": "rms", "adam_b2": 0.99, "adam_eps": 1e-8},
        steps=1500,
    ),
)
LAYERS = {"normuon": lambda **s: normuon(0.1, weight_decay=0.1, **s)}
VERIFIED = {
    "normuon": Verified("A20", "pytorch-optimizer 4.1.0 NorMuon", 1e-12),
}


def test_equals_a_published_port(recorded):
    """With Adam on the bias; the kernel is called hidden."""
    given = dict(adam_b1=0.8, adam_b2=0.95, adam_eps=1e-3, eps=0.0, matrices="kernel")
    found = recorded("normuon", normuon(0.05, weight_decay=0.1, **given))
    assert found <= VERIFIED["normuon"].within


@pytest.mark.parametrize("keep", ["norm", "rms"])
def test_levelling_equals_a_numpy_transcription(x64, oracle, keep):
    b2, eps, rms = 0.9, 1e-3, 0.3

    def rule(w, g, memory, t):
        if w.ndim < 2:
            return w + g, "free"
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * np.mean(
            g * g, 1, keepdims=True
        )
        o = g / (np.sqrt(v) + eps)
        kept = np.linalg.norm(g) if keep == "norm" else rms * np.sqrt(g.size)
        norm = np.linalg.norm(o)
        return w + (o * kept / norm if norm else o), "leveled"

    level = scale_by_neuron_rms(b2, eps, keep=keep, rms=rms, stacked="^blocks/")
    seen = oracle.compare(level, rule, steps=24, atol=1e-12)
    assert set(seen) == {"free", "leveled"}


def test_units_of_one_size_stay_as_they_are(x64):
    square, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))
    u, level = jnp.asarray(square), scale_by_neuron_rms()
    found, state = level.update(u, level.init(u), u)
    np.testing.assert_allclose(found, u, rtol=1e-12)
    assert state.nu.shape == (1, 5)
