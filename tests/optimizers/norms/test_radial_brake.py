"""The radial brake: its definition, the pinned radius, and nothing at one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import constrain, constraints, descend, radial_brake
from gnomon_contract import Verified

VERIFIED = {"radial_brake": Verified("", "NumPy", 1e-12)}


@pytest.mark.parametrize("view", ["layer", "unit"])
def test_equals_a_numpy_transcription(x64, oracle, view):
    rate, outward, inward = 0.3, 0.4, 0.7
    grown = []

    def rule(w, g, memory, t):
        moved = w - rate * g
        if w.ndim < 2:
            return moved, "all"
        axis = 1 if view == "unit" else None
        before, after = (np.sqrt((x * x).sum(axis, keepdims=True)) for x in (w, moved))
        grown.append((after > before).mean())
        norm = before + np.where(after > before, outward, inward) * (after - before)
        return moved * norm / after, "all"

    given = dict(view=view, stacked="^blocks/")
    optimizer = optax.chain(descend(rate), radial_brake(outward, inward, **given))
    within = VERIFIED["radial_brake"].within
    oracle.compare(optimizer, rule, steps=24, atol=within)
    assert 0.1 < np.mean(grown) < 0.9


W = {"kernel": jnp.cos(jnp.arange(6.0)).reshape(3, 2), "bias": jnp.ones(2)}


def step(optimizer):
    g = jax.tree.map(jnp.sin, W)
    return optimizer.update(g, optimizer.init(W), W)[0]


def test_at_zero_it_is_the_fixed_norm_and_at_one_nothing():
    inner = optax.sgd(0.3)
    pinned = step(optax.chain(inner, radial_brake(0.0, 0.0)))
    wanted = step(constrain(inner, constraints.fixed_norm()))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7),
        pinned,
        wanted,
    )
    free = step(optax.chain(inner, radial_brake(1.0, 1.0)))
    jax.tree.map(np.testing.assert_array_equal, free, step(inner))
