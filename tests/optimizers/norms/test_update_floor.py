"""The update floor: its definition, in both views."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import descend, observed, update_floor
from gnomon_contract import Verified

VERIFIED = {"update_floor": Verified("", "NumPy", 1e-12)}


@pytest.mark.parametrize("view", ["layer", "unit"])
def test_equals_a_numpy_transcription(x64, oracle, view):
    rate, floor = 0.1, 1.5
    raised = []

    def rule(w, g, memory, t):
        if w.ndim > 1:
            axis = 1 if view == "unit" else None
            norm, least = (np.sqrt((x * x).sum(axis, keepdims=True)) for x in (g, w))
            short = (norm < floor * least) & (norm > 0)
            raised.append(short.mean())
            g = np.where(short, g * floor * least / np.where(norm > 0, norm, 1), g)
        return w - rate * g, "all"

    given = dict(view=view, stacked="^blocks/")
    optimizer = optax.chain(update_floor(floor, **given), descend(rate))
    within = VERIFIED["update_floor"].within
    oracle.compare(optimizer, rule, steps=24, atol=within)
    assert 0.02 < np.mean(raised) < 0.98


def test_what_it_leaves_alone_and_what_it_tells():
    w = {"kernel": jnp.full((2, 3), 3.0), "bias": jnp.full(2, 3.0)}
    u = {"kernel": jnp.array([[0.1, 9.0, 0.0]] * 2), "bias": jnp.full(2, 1e-3)}
    floor = update_floor(0.5, view="unit")
    with observed() as seen:
        found, _ = floor.update(u, floor.init(w), w)
    np.testing.assert_allclose(found["kernel"][0], [1.5, 9.0, 0.0], rtol=1e-6)
    np.testing.assert_array_equal(found["bias"], u["bias"])
    assert seen["floored"] == pytest.approx(1 / 3)
    none = update_floor(0.0)
    found, _ = none.update(u, none.init(w), w)
    jax.tree.map(np.testing.assert_array_equal, found, u)
