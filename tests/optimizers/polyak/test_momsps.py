"""MomSPS: NumPy oracles of both variants, and why it corrects for the momentum."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers
from gnomon_contract import POLYAK, Row, Verified

ROWS = (
    Row(
        "momsps",
        optimizers.momsps,
        {"max_learning_rate": 1.0, "momentum": 0.9, "c": 1.0, "growth": 2.0},
        {"variant": "smooth"},
        **POLYAK,
    ),
)
VERIFIED = {"momsps": Verified("", "NumPy", 1e-10)}


def oracle(beta, c=1.0, cap=10.0, f_min=0.0, growth=None):
    """MomSPS_max in NumPy, or MomSPS_smooth if ``growth`` a step is given."""

    def path(weights, loss):
        w, last, gamma = weights.copy(), weights.copy(), 1.0
        for step in range(1000):
            value, g = loss(w, step)
            polyak = (value - f_min) / (c * (g @ g))
            if growth is None:
                gamma = (1 - beta) * min(polyak, cap)
            else:
                gamma = min((1 - beta) * polyak, growth * gamma)
            w, last = w - gamma * g + beta * (w - last), w
            yield w, gamma

    return path


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optimizers.momsps(), oracle(0.9)),
        (
            optimizers.momsps(0.5, momentum=0.5, c=0.4, f_min=0.04),
            oracle(0.5, 0.4, 0.5, 0.04),
        ),
        (
            optimizers.momsps(variant="smooth", growth=4.0, n_batches=8),
            oracle(0.9, growth=4.0**0.125),
        ),
    ],
    ids=["max", "capped", "smooth"],
)
def test_equals_a_numpy_oracle(follow, optimizer, expected):
    follow(optimizer, expected)


@pytest.mark.parametrize("variant", ["max", "smooth"])
def test_below_f_min_only_momentum_moves_the_weights(variant):
    w = jnp.array([1.0, 2.0])
    optimizer = optimizers.momsps(variant=variant, momentum=0.5)
    state = optimizer.init(w)
    first, state = optimizer.update(w, state, value=3.0)
    held = state.last_positive
    second, state = optimizer.update(w, state, value=-3.0)
    np.testing.assert_array_equal(second, 0.5 * first)
    assert state.step_size == 0
    assert state.last_positive == held


def test_at_its_cap_it_is_heavy_ball_with_a_corrected_rate(x64):
    """(1 - momentum) times the bound is the learning rate of optax.sgd."""
    optimizer = optimizers.momsps(0.2, momentum=0.9, f_min=-1e9)
    sgd = optax.sgd((1 - 0.9) * 0.2, momentum=0.9)
    w = jnp.array([1.0, -2.0])
    states = [optimizer.init(w), sgd.init(w)]
    for step in range(10):
        grad = w * jnp.cos(1.0 * step)
        got, states[0] = optimizer.update(grad, states[0], value=1.0)
        expected, states[1] = sgd.update(grad, states[1])
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-14)


def test_uncorrected_heavy_ball_does_not_converge(x64):
    """On least squares, one row at a time and all of them solvable at once, the Polyak
    step plus momentum blows up without the factor 1 - momentum."""
    rows = jax.random.normal(jax.random.key(0), (64, 4), jnp.float64)

    def final_distance(optimizer):
        def step(carry, row):
            w, state = carry
            value, grad = jax.value_and_grad(lambda w: 0.5 * (row @ w) ** 2)(w)
            updates, state = optimizer.update(grad, state, w, value=value)
            return (optax.apply_updates(w, updates), state), None

        w = jnp.ones(4)
        carry = (w, optimizer.init(w))
        epochs = jnp.tile(rows, (10, 1))
        return jnp.linalg.norm(jax.lax.scan(step, carry, epochs)[0][0])

    corrected = final_distance(optimizers.momsps(c=0.5, momentum=0.9))
    # c = 0.05 undoes the factor: (1 - 0.9) / 0.05 = 1 / 0.5.
    uncorrected = final_distance(optimizers.momsps(jnp.inf, c=0.05, momentum=0.9))
    assert corrected < 1e-3
    assert uncorrected > 1.0


def test_refusals_name_the_argument():
    w = jnp.ones(2)
    optimizer = optimizers.momsps()
    with pytest.raises(ValueError, match=r"momsps needs .* `value`"):
        optimizer.update(w, optimizer.init(w), w)
    with pytest.raises(ValueError, match="variant='min' is not one of"):
        optimizers.momsps(variant="min")
    with pytest.raises(ValueError, match="n_batches must be a scalar"):
        optimizers.momsps(n_batches=w)
