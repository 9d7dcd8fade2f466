"""Positive-negative momentum: a published port, and its two averages."""

import jax.numpy as jnp
import numpy as np
import optax

from gnomon.optimizers import descend, scale_by_pnm
from gnomon_contract import Verified

VERIFIED = {"scale_by_pnm": Verified("A10", "pytorch-optimizer 4.1.0 Ranger21", 1e-12)}


def test_equals_a_published_port(recorded):
    """With a softened denominator, and all other parts switched off."""
    direction = scale_by_pnm(0.8, 0.95, 1e-3, negative=0.9, sharpness=5.0)
    found = recorded("pnm", optax.chain(direction, descend(0.05)))
    assert found <= VERIFIED["scale_by_pnm"].within


def test_a_steady_gradient_keeps_its_mean_and_noise_is_as_large_as_before(x64):
    transform = scale_by_pnm(0.9, 0.9, negative=2.0)
    w, steady = jnp.zeros(1), jnp.full(1, 0.3)
    state = transform.init(w)
    for _ in range(400):
        u, state = transform.update(steady, state, w)
    np.testing.assert_allclose(u, 1 / np.sqrt(3**2 + 2**2), rtol=1e-6)


def test_the_denominator_has_a_floor():
    w = jnp.zeros(2)
    soft = scale_by_pnm(eps=0.0, sharpness=50.0)
    g = jnp.array([1e-6, 0.0])
    u, _ = soft.update(g, soft.init(w), w)
    first = (1 - 0.9**2) * 2 / np.sqrt(5) / (1 - 0.9)
    np.testing.assert_allclose(u, first * g * 50 / np.log(2), rtol=1e-3)
