"""LARS: a published port, optax's, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import lars
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "lars",
        lars,
        {"learning_rate": 0.01, "weight_decay": 1e-6, "momentum": 0.9, "trust": 0.1},
    ),
)
LAYERS = {"lars": lambda **s: lars(0.1, weight_decay=0.1, trust=0.1, **s)}
VERIFIED = {"lars": Verified("A11", "pytorch-optimizer 4.1.0 LARS", 1e-15)}

W = {"kernel": jnp.cos(jnp.arange(6.0)).reshape(3, 2)}


def one_step(g, **given):
    optimizer = lars(0.5, momentum=0.0, trust=0.1, **given)
    return optimizer.update(g, optimizer.init(W), W)[0]["kernel"]


@pytest.mark.parametrize("nesterov", [False, True])
def test_equals_a_published_port(recorded, nesterov):
    optimizer = lars(0.7, weight_decay=0.1, momentum=0.8, nesterov=nesterov)
    found = recorded("lars_nesterov" if nesterov else "lars", optimizer)
    assert found <= VERIFIED["lars"].within


def test_by_the_norm_of_the_sum_equals_optax(x64):
    w = {"kernel": jnp.cos(jnp.arange(12.0)).reshape(4, 3)}
    ours = lars(0.3, weight_decay=0.2, momentum=0.8, rule="sum")
    theirs = optax.lars(0.3, weight_decay=0.2, momentum=0.8)
    states = [ours.init(w), theirs.init(w)]
    for t in range(5):
        g = jax.tree.map(lambda x, t=t: jnp.sin((t + 1) * x) * float(t != 3), w)
        got, states[0] = ours.update(g, states[0], w)
        wanted, states[1] = theirs.update(g, states[1], w)
        np.testing.assert_allclose(got["kernel"], wanted["kernel"], rtol=1e-13)


def test_the_scale_of_the_gradient_does_not_matter():
    g = jax.tree.map(jnp.sin, W)
    wanted = one_step(g)
    np.testing.assert_allclose(one_step({"kernel": 1e6 * g["kernel"]}), wanted, 1e-5)
    np.testing.assert_array_equal(one_step(g, rule="sum"), wanted)
    length = 0.5 * 0.1 * jnp.linalg.norm(W["kernel"])
    np.testing.assert_allclose(jnp.linalg.norm(wanted), length, rtol=1e-6)


def test_without_a_gradient_weights_decay_at_the_coefficient():
    """r = c / lambda: a step of eta c w, by either denominator."""
    for rule in ("paper", "sum"):
        still = {"kernel": jnp.zeros((3, 2))}
        got = one_step(still, weight_decay=0.01, rule=rule)
        np.testing.assert_allclose(got, -0.5 * 0.1 * W["kernel"], rtol=1e-6)


def test_vectors_have_no_ratio_and_do_not_decay():
    w = {"bias": jnp.array([3.0, 4.0]), "scale": jnp.ones(2)}
    optimizer = lars(0.5, weight_decay=0.3)
    updates, _ = optimizer.update(w, optimizer.init(w), w)
    jax.tree.map(lambda u, x: np.testing.assert_allclose(u, -0.5 * x), updates, w)
