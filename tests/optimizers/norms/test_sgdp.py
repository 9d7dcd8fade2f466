"""SGDP: an independent transcription, the laws of norm growth and the paper's toy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.optimizers import scale_by_sgdp, sgdp
from gnomon_contract import Row, Verified
from gnomon_contract.layers import by_rank, descending

ROWS = (
    Row(
        "sgdp",
        sgdp,
        {
            "learning_rate": 0.01,
            "momentum": 0.9,
            "dampening": 0.1,
            "weight_decay": 1e-6,
            "delta": 0.1,
            "wd_ratio": 0.1,
        },
        {"nesterov": True},
    ),
    Row(
        "sgdp_projected_buffer",
        sgdp,
        {"learning_rate": 0.01, "momentum": 0.9},
        {"project_buffer": True},
    ),
)
LAYERS = {
    "sgdp": lambda **s: sgdp(
        0.1, momentum=0.9, weight_decay=0.1, weight_decay_mask=by_rank, **s
    ),
    "scale_by_sgdp": lambda **s: descending(scale_by_sgdp(momentum=0.9, **s)),
}
VERIFIED = {"sgdp": Verified("A01", "the authors' adamp 0.3.0", 1e-10)}


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("project_buffer", [False, True])
def test_equals_a_numpy_transcription(x64, oracle, nesterov, project_buffer):
    rate, mu, damp, eps, decay, delta, ratio = 0.02, 0.8, 0.3, 1e-7, 0.02, 0.2, 0.3

    def rule(w, g, memory, t):
        b = memory["b"] = mu * memory.get("b", 0.0) + (1 - damp) * g
        p = g + mu * b if nesterov else b
        r, view = 1.0, "bias"
        if w.ndim > 1:
            p, r, view = oracle.project(w, g, p, delta, ratio, eps)
        if project_buffer and not nesterov:
            memory["b"] = p
        return w * (1 - rate * decay * r / (1 - mu)) - rate * p, view

    optimizer = sgdp(
        rate,
        momentum=mu,
        dampening=damp,
        eps=eps,
        weight_decay=decay,
        delta=delta,
        wd_ratio=ratio,
        nesterov=nesterov,
        project_buffer=project_buffer,
        stacked="^blocks/",
    )
    views = oracle.compare(optimizer, rule, steps=60, atol=1e-12)
    assert set(views) == {"unit", "layer", "none", "bias"}


def scale_invariant_loss(w):
    """Depends on the direction of every column of ``w`` alone."""
    unit = w / jnp.sqrt(jnp.sum(w**2, axis=0, keepdims=True))
    target = jnp.arange(1.0, 1.0 + w.size).reshape(w.shape)
    return jnp.sum(target * unit) + jnp.sum(unit**3)


def trajectory(optimizer, seed, steps=12):
    """Squared column norms before each step and after the last, and the directions."""
    w = jax.random.normal(jax.random.key(seed), (4, 3))

    @jax.jit
    def step(w, state):
        updates, state = optimizer.update(jax.grad(scale_invariant_loss)(w), state, w)
        return optax.apply_updates(w, updates), state, updates

    state, norms, updates = optimizer.init(w), [jnp.sum(w**2, axis=0)], []
    for _ in range(steps):
        w, state, update = step(w, state)
        norms.append(jnp.sum(w**2, axis=0))
        updates.append(update)
    return np.array(norms), np.array([np.sum(np.square(u), axis=0) for u in updates])


seeds = st.integers(0, 2**31)


@given(seeds)
@settings(max_examples=4, deadline=None)
def test_gradient_descent_adds_the_squared_step(seed):
    """|w'|^2 = |w|^2 + lr^2 |g|^2: the gradient is orthogonal to the weight."""
    with jax.enable_x64(True):
        norms, squares = trajectory(optax.sgd(0.05), seed)
        np.testing.assert_allclose(norms[1:], norms[:-1] + squares, rtol=1e-12)


@pytest.mark.parametrize("beta", [0.5, 0.9])
def test_heavy_ball_adds_the_past_steps_too(x64, beta):
    """|w'|^2 = |w|^2 + lr^2 (|p_t|^2 + 2 sum_{k<t} beta^(t-k) |p_k|^2), with SGDP
    switched off."""
    norms, squares = trajectory(sgdp(0.02, momentum=beta, delta=0.0), seed=3)
    past = np.zeros_like(squares[0])
    for t, square in enumerate(squares):
        growth = square + 2 * past
        np.testing.assert_allclose(norms[t + 1], norms[t] + growth, rtol=1e-12)
        past = beta * (past + square)
    assert (past > 0).all()


@given(seeds)
@settings(max_examples=4, deadline=None)
def test_sgdp_adds_the_squared_step_alone(seed):
    """|w'|^2 = |w|^2 + lr^2 |q|^2 with momentum: the cross term is gone."""
    with jax.enable_x64(True):
        norms, squares = trajectory(sgdp(0.02, momentum=0.9, eps=1e-30), seed)
        np.testing.assert_allclose(norms[1:], norms[:-1] + squares, rtol=1e-12)


@pytest.mark.parametrize("nesterov", [False, True])
def test_without_a_threshold_it_is_momentum_sgd(x64, nesterov):
    ours, _ = trajectory(sgdp(0.05, momentum=0.9, nesterov=nesterov, delta=0.0), 0)
    theirs, _ = trajectory(optax.sgd(0.05, momentum=0.9, nesterov=nesterov), 0)
    np.testing.assert_allclose(ours, theirs, rtol=1e-13)


@pytest.mark.parametrize(("delta", "ratio"), [(0.0, 1.0), (1e9, 0.1)])
def test_decay_is_divided_by_one_minus_momentum(x64, delta, ratio):
    w = jnp.arange(6.0).reshape(3, 2)
    optimizer = scale_by_sgdp(0.9, weight_decay=1e-5, delta=delta)
    direction, _ = optimizer.update(0 * w, optimizer.init(w), w)
    np.testing.assert_allclose(direction, 1e-4 * ratio * w, rtol=1e-12)


def test_the_first_gradient_is_damped_too(x64):
    """The buffer starts at zero; PyTorch's own SGD starts it at the gradient."""
    w = jnp.ones((3,))
    optimizer = scale_by_sgdp(0.9, 0.25)
    direction, _ = optimizer.update(w, optimizer.init(w), w)
    np.testing.assert_allclose(direction, 0.75)


def test_the_stored_momentum_is_the_sum_of_gradients(x64):
    """Unless the buffer is projected, the projection leaves no trace in the state."""
    w, g, h = jax.random.normal(jax.random.key(0), (3, 4, 2))
    for project_buffer in (False, True):
        optimizer = scale_by_sgdp(0.9, delta=1e9, project_buffer=project_buffer)
        state = optimizer.init(w)
        for grad in (g, h):
            direction, state = optimizer.update(grad, state, w)
        if project_buffer:
            np.testing.assert_allclose(state.trace, direction, atol=1e-14)
        else:
            np.testing.assert_allclose(state.trace, 0.9 * g + h, atol=1e-14)


@pytest.mark.parametrize(
    ("momentum", "sgd_norm", "sgdp_norm"),
    [(0.9, 2.927, 1.127), (0.95, 5.662, 1.141), (0.99, 27.870, 1.146)],
)
def test_the_toy_of_the_paper(x64, toy_norm, momentum, sgd_norm, sgdp_norm):
    """The paper's figure quotes 2.93 and 27.87 for momentum SGD at 0.9 and 0.99; SGDP
    stays near the norm of 1 that it starts from, as plain SGD does (1.020)."""
    published = toy_norm(optax.sgd(0.02, momentum=momentum))
    np.testing.assert_allclose(published, sgd_norm, atol=5e-4)
    np.testing.assert_allclose(
        toy_norm(sgdp(0.02, momentum=momentum)), sgdp_norm, atol=5e-4
    )


def test_plain_sgd_in_the_toy(x64, toy_norm):
    np.testing.assert_allclose(toy_norm(sgdp(0.02)), 1.020, atol=5e-4)
