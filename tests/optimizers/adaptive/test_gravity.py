"""Gravity: its definition, its damping and its first velocities."""

import jax.numpy as jnp
import numpy as np
import optax

from gnomon.optimizers import gravity, scale_by_gravity
from gnomon_contract import Row, Verified
from gnomon_contract.layers import by_rank

ROWS = (
    Row(
        "gravity",
        gravity,
        # Without the first velocities, which the names of leaves decide.
        {"learning_rate": 0.2, "alpha": 0.0, "beta": 0.9, "weight_decay": 1e-5},
        # The large gradients of the start move almost nothing.
        steps=2500,
    ),
)
LAYERS = {
    "gravity": lambda **s: gravity(
        0.1, weight_decay=0.1, weight_decay_mask=by_rank, **s
    )
}
VERIFIED = {"gravity": Verified("A09", "NumPy", 1e-12)}


def test_equals_a_numpy_transcription(x64, oracle):
    rate, beta, decay = 0.3, 0.8, 0.05

    def rule(w, g, memory, t):
        k = np.abs(g).max()
        z = g / (1 + (k * g) ** 2)
        b = (beta * t + 1) / (t + 2)
        v = memory["v"] = b * memory.get("v", 0.0) + (1 - b) * z
        return w - rate * (v + decay * w), "all"

    given = dict(alpha=0.0, beta=beta, weight_decay=decay, stacked="^blocks/")
    oracle.compare(gravity(rate, **given), rule, steps=40, atol=1e-12)


def test_a_constant_gradient(x64):
    """The velocity goes to the damped gradient, at the rate of the moving average."""
    transform = scale_by_gravity(0.9, initial_std=0.0)
    w, g = jnp.zeros(3), jnp.array([0.1, -2.0, 1e8])
    state = transform.init(w)
    damped = g / (1 + (1e8 * g) ** 2)
    left = 1.0
    for t in range(1, 6):
        direction, state = transform.update(g, state, w)
        left *= (0.9 * t + 1) / (t + 2)
        np.testing.assert_allclose(direction, (1 - left) * damped, rtol=1e-12)


def test_no_damped_gradient_exceeds_one_over_twice_the_largest(x64):
    transform = scale_by_gravity(0.0, initial_std=0.0)
    for largest in (1.5, 40.0):
        g = largest * jnp.linspace(-1.0, 1.0, 1001)
        g = g.at[7].set(1 / largest)  # where the bound is met
        direction, _ = transform.update(g, transform.init(g), g)
        damped = jnp.abs(direction) / (2 / 3)  # of the first step's average
        np.testing.assert_allclose(damped[7], 1 / (2 * largest), rtol=1e-12)
        assert (jnp.delete(damped, 7) < damped[7]).all()


def test_first_velocities_are_of_size_alpha_over_the_learning_rate():
    w = {"kernel": jnp.zeros((200, 100)), "other": jnp.zeros((200, 100))}
    schedule = optax.linear_schedule(0.5, 0.0, 10)
    for rate in (0.5, schedule):
        state = gravity(rate, alpha=0.02, seed=3).init(w)
        velocity = state[0].velocity
        np.testing.assert_allclose(np.std(velocity["kernel"]), 0.04, rtol=0.03)
        correlation = np.mean(velocity["kernel"] * velocity["other"])
        assert abs(correlation) < 0.05 * 0.04**2
    other = gravity(0.5, alpha=0.02, seed=4).init(w)[0].velocity
    assert not np.array_equal(other["kernel"], velocity["kernel"])
    # Where the rate begins at zero there is no size to give them.
    still = gravity(optax.linear_schedule(0.0, 0.5, 10)).init(w)[0].velocity
    np.testing.assert_array_equal(still["kernel"], 0)
