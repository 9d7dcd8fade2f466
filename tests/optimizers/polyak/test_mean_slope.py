"""Normalized logistic descent: the perceptron, and the paper's worked case."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import scale_by_mean_slope
from gnomon_contract import Verified

VERIFIED = {
    "scale_by_mean_slope": Verified("A36", "iterations published in the paper", 0.0)
}
# One sample of the first class, 999 of the other, each times its class.
SAMPLES = np.concatenate([[[0.5, -1.0]], np.tile([[0.5, 1.0]], (999, 1))])


def margins(w):
    return jnp.asarray(SAMPLES) @ w


def loss(w):
    return jnp.mean(jnp.logaddexp(0.0, -margins(w)))


def mean_slope(w):
    return jnp.mean(jax.nn.sigmoid(-margins(w)))


def iterations(optimizer):
    """Steps until all margins are positive."""

    def step(carry):
        w, state, count = carry
        given = dict(slope=mean_slope(w))
        updates, state = optimizer.update(jax.grad(loss)(w), state, w, **given)
        return optax.apply_updates(w, updates), state, count + 1

    optimizer = optax.with_extra_args_support(optimizer)
    w = jnp.zeros(2)
    start = w, optimizer.init(w), 0
    wrong = lambda carry: (margins(carry[0]) <= 0).any()  # noqa: E731
    return int(jax.lax.while_loop(wrong, step, start)[2])


def test_the_worked_case_of_the_paper(x64):
    normalized = {
        gamma: iterations(optax.chain(scale_by_mean_slope(), optax.sgd(gamma)))
        for gamma in (100.0, 10.0, 1.0, 0.1)
    }
    assert normalized == {100.0: 2, 10.0: 2, 1.0: 16, 0.1: 157}
    assert iterations(optax.sgd(100.0)) == 308


def test_long_steps_are_the_perceptron_over_the_number_of_mistakes(x64):
    w = jnp.array([-3e5, 1e5])
    wrong = np.asarray(margins(w)) <= 0
    transform = scale_by_mean_slope()
    g = jax.grad(loss)(w)
    found, _ = transform.update(g, transform.init(w), slope=mean_slope(w))
    np.testing.assert_allclose(found, -SAMPLES[wrong].mean(0), rtol=1e-12)


def test_of_the_loss_alone_steps_are_never_longer(x64):
    transform = scale_by_mean_slope()
    for w in (jnp.array([0.3, 0.2]), jnp.array([-2.0, 0.1])):
        g = jax.grad(loss)(w)
        exact, _ = transform.update(g, transform.init(w), slope=mean_slope(w))
        by_loss, _ = transform.update(g, transform.init(w), value=loss(w))
        shorter = by_loss / exact
        assert (shorter > 0.3).all()
        assert (shorter < 1).all()
    one = lambda w: jnp.logaddexp(0.0, -w.sum())  # noqa: E731
    w = jnp.array([1.0, 2.0])
    by_loss, _ = transform.update(jax.grad(one)(w), transform.init(w), value=one(w))
    np.testing.assert_allclose(by_loss, -1.0, rtol=1e-12)


def test_where_no_slope_is_left_the_last_direction_is_kept():
    transform = scale_by_mean_slope()
    w = jnp.ones(2)
    first, state = transform.update(w, transform.init(w), slope=0.5)
    second, _ = transform.update(0 * w, state, slope=jnp.float32(1e-38))
    np.testing.assert_array_equal(second, first)
    with pytest.raises(ValueError, match="needs the mean slope"):
        transform.update(w, state)
