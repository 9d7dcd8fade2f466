"""ALI-G: a NumPy oracle, its two momenta, and the ball."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gnomon import optimizers
from gnomon.optimizers.polyak.alig import project_onto_ball
from gnomon_contract import POLYAK, Row, Verified

ROWS = (
    Row(
        "alig",
        optimizers.alig,
        {"max_learning_rate": 0.02, "momentum": 0.9, "eps": 1e-5, "max_norm": 30.0},
        **{**POLYAK, "needs_params": True},
    ),
)
LAYERS = {"alig": lambda: optimizers.alig(0.1, momentum=0.9)}
VERIFIED = {"alig": Verified("", "NumPy", 1e-10)}


def oracle(cap, mu, eps=1e-5, f_min=0.0, radius=np.inf, adjusted=False):
    """ALI-G in NumPy: the gradient step, then momentum, then the ball."""

    def path(weights, loss):
        w, v = weights.copy(), np.zeros_like(weights)
        for step in range(1000):
            value, g = loss(w, step)
            gamma = min(max(value - f_min, 0) / (g @ g + eps), cap)
            w = w - gamma * g
            if adjusted:
                v = mu * v - g
                w = w + gamma * mu * v
            else:
                v = mu * v - gamma * g
                w = w + mu * v
            w = w * min(1, radius / np.linalg.norm(w))
            yield w, gamma

    return path


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, oracle(0.3, 0.9)),
        ({"adjusted_momentum": True}, oracle(0.3, 0.9, adjusted=True)),
        ({"max_norm": 1.0}, oracle(0.3, 0.9, radius=1.0)),
        (
            {"momentum": 0.5, "f_min": 0.04, "eps": 1e-2},
            oracle(0.3, 0.5, 1e-2, 0.04),
        ),
    ],
    ids=["standard", "adjusted", "ball", "f_min"],
)
def test_equals_a_numpy_oracle(follow, options, expected):
    follow(optimizers.alig(0.3, **options), expected)


def test_momenta_agree_while_the_step_size_is_constant(x64):
    """At the cap gamma goes in or out of the buffer alike; below it they differ."""
    w, grad = jnp.array([1.0, -2.0]), jnp.array([0.3, 0.4])

    def after(values, **options):
        optimizer = optimizers.alig(0.1, **options)
        state, updates = optimizer.init(w), w
        for value in values:
            updates, state = optimizer.update(grad, state, w, value=value)
        return updates

    for values, same in (([9.0, 9.0], True), ([9.0, 0.01], False)):
        standard, adjusted = after(values), after(values, adjusted_momentum=True)
        assert np.allclose(standard, adjusted, rtol=1e-12) == same


def test_at_its_cap_it_is_nesterov_sgd(x64):
    sgd = optax.sgd(0.1, momentum=0.9, nesterov=True)
    alig = optimizers.alig(0.1, momentum=0.9, f_min=-1e9)
    w = jnp.array([1.0, -2.0])
    states = [sgd.init(w), alig.init(w)]
    for step in range(10):
        grad = w * jnp.cos(1.0 * step)
        expected, states[0] = sgd.update(grad, states[0])
        got, states[1] = alig.update(grad, states[1], value=1.0)
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)


@given(
    leaves=st.tuples(
        *(
            hnp.arrays(np.float32, n, elements=dict(min_value=-9, max_value=9))
            for n in (3, 4)
        )
    ),
    radius=st.floats(0.125, 20, width=32),
)
@settings(max_examples=60, deadline=None)
def test_the_ball_holds_all_leaves_together(leaves, radius):
    """Outside, the point is scaled to the sphere; inside, the update is untouched."""
    params = {"a": jnp.asarray(leaves[0]), "b": jnp.asarray(leaves[1])}
    updates = {"a": jnp.asarray(leaves[0][::-1]), "b": jnp.asarray(leaves[1] / 3)}
    moved = optax.apply_updates(params, updates)
    norm = optax.tree.norm(moved)
    assume(abs(norm - radius) > 1e-4 * radius)
    pulled = project_onto_ball(updates, params, radius)
    landed = optax.apply_updates(params, pulled)
    if norm <= radius:
        jax.tree.map(np.testing.assert_array_equal, pulled, updates)
    else:
        jax.tree.map(
            lambda x, m: np.testing.assert_allclose(
                x, m * (radius / norm), rtol=1e-4, atol=1e-5
            ),
            landed,
            moved,
        )


def test_below_f_min_only_momentum_moves_the_weights():
    w = jnp.array([1.0, 2.0])
    optimizer = optimizers.alig(0.1, momentum=0.5, f_min=1.0)
    state = optimizer.init(w)
    updates, state = optimizer.update(w, state, value=0.0)
    np.testing.assert_array_equal(updates, 0.0)
    _, state = optimizer.update(w, state, value=9.0)
    velocity = state.velocity
    updates, state = optimizer.update(w, state, value=0.0)
    assert state.step_size == 0
    np.testing.assert_array_equal(updates, 0.25 * velocity)


def test_refusals_name_the_argument():
    w = jnp.ones(2)
    optimizer = optimizers.alig(0.1)
    with pytest.raises(ValueError, match=r"alig needs .* `value`"):
        optimizer.update(w, optimizer.init(w), w)
    with pytest.raises(ValueError, match="alig with max_norm needs the current param"):
        optimizers.alig(0.1, max_norm=1.0).update(w, optimizer.init(w), value=1.0)
    with pytest.raises(ValueError, match="max_norm must be a scalar"):
        optimizers.alig(0.1, max_norm=w)
