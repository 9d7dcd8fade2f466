"""SPS and what the Polyak family shares: oracles, guards, exact small cases."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gnomon import optimizers
from gnomon.optimizers.polyak.step_size import polyak_step
from gnomon.parameters.products import inner_product
from gnomon_contract import POLYAK, Row, Verified

ROWS = (
    Row(
        "sps",
        optimizers.sps,
        {"max_learning_rate": 1.0, "c": 0.5, "init_step_size": 0.1, "n_batches": 5.0},
        {"variant": "smooth"},
        **POLYAK,
    ),
)
LAYERS = {"sps": lambda: optimizers.sps(1.0)}
VERIFIED = {"sps": Verified("", "NumPy", 1e-10)}


def oracle(c, cap, f_min=0.0, growth=None):
    """SPS in NumPy; with ``growth`` a step, smoothed from a first step size of 1."""

    def path(weights, loss):
        w, gamma = weights.copy(), 1.0
        for step in range(1000):
            value, g = loss(w, step)
            bound = cap if growth is None else min(cap, growth * gamma)
            gamma = min((value - f_min) / (c * (g @ g)), bound)
            w = w - gamma * g
            yield w, gamma

    return path


@pytest.mark.parametrize(
    ("optimizer", "expected"),
    [
        (optimizers.sps(0.4, f_min=0.02), oracle(0.5, 0.4, f_min=0.02)),
        (optimizers.sps(c=1.5), oracle(1.5, np.inf)),
        (optimizers.sps(variant="plus"), oracle(1.0, np.inf)),
        (
            optimizers.sps(5.0, variant="smooth", f_min=0.02, growth=8.0, n_batches=5),
            oracle(0.5, 5.0, f_min=0.02, growth=8.0**0.2),
        ),
    ],
    ids=["constant", "uncapped", "plus", "smooth"],
)
def test_equals_a_numpy_oracle(follow, optimizer, expected):
    follow(optimizer, expected)


def minimize(optimizer, loss, w, steps):
    state = optimizer.init(w)
    for _ in range(steps):
        value, grad = jax.value_and_grad(loss)(w)
        updates, state = optimizer.update(grad, state, w, value=value)
        w = optax.apply_updates(w, updates)
        yield w, state


def test_on_a_sphere_each_step_halves_or_solves():
    """c = 1 halves x, so the loss falls 14, 3.5, 0.875; c = 1/2 reaches the solution at
    once and then stays there, where the step size would be 0/0."""
    w = jnp.array([1.0, 2.0, 3.0])

    def loss(w):
        return jnp.sum(w**2)

    halved = [loss(x) for x, _ in minimize(optimizers.sps(c=1.0), loss, w, 2)]
    np.testing.assert_array_equal(halved, [3.5, 0.875])
    for x, _ in minimize(optimizers.sps(c=0.5), loss, w, 3):
        np.testing.assert_array_equal(x, 0.0)


def test_plus_equals_optax_where_optax_is_right(x64):
    """Down to squared norms of 2.2e-16, at which optax stops."""
    theirs = optax.polyak_sgd(max_learning_rate=jnp.inf, variant="sps+")
    w = jnp.array([1.0, -2.0, 0.5])

    def loss(w):
        return jnp.sum(jnp.array([1.0, 3.0, 9.0]) * w**2)

    ours = minimize(optimizers.sps(variant="plus"), loss, w, 20)
    for (a, _), (b, _) in zip(ours, minimize(theirs, loss, w, 20), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-14)
    tiny = jnp.array([1e-10])
    updates, _ = theirs.update(2 * tiny, theirs.init(tiny), value=jnp.sum(tiny**2))
    assert updates[0] == 0
    ((x, _),) = minimize(optimizers.sps(c=1.0), lambda w: jnp.sum(w**2), tiny, 1)
    np.testing.assert_allclose(x, tiny / 2, rtol=1e-12)


@pytest.mark.parametrize("variant", ["constant", "smooth", "plus"])
def test_below_f_min_no_step_is_taken(variant):
    """optax's default variant would climb."""
    w = jnp.array([1.0, 2.0])
    optimizer = optimizers.sps(variant=variant, f_min=10.0)
    updates, state = optimizer.update(w, optimizer.init(w), value=3.0)
    np.testing.assert_array_equal(updates, 0.0)
    assert state.step_size == 0
    climbing = optax.polyak_sgd(f_min=10.0)
    assert climbing.update(w, climbing.init(w), value=3.0)[0] @ w > 0


def test_smoothing_survives_a_step_of_zero():
    """It grows from the last positive step size: zero would hold it for ever."""
    w = jnp.array([1.0, 2.0])
    optimizer = optimizers.sps(variant="smooth", init_step_size=0.01, n_batches=1)
    state = optimizer.init(w)
    sizes = []
    for grad, value in ((w, 5.0), (0 * w, 5.0), (w, 0.0), (w, 5.0)):
        _, state = optimizer.update(grad, state, value=value)
        sizes.append(state.step_size)
    np.testing.assert_allclose(sizes, [0.02, 0.0, 0.0, 0.04], rtol=1e-6)


def test_f_min_and_the_bound_may_be_schedules():
    w = jnp.array([1.0, 2.0])
    optimizer = optimizers.sps(
        lambda count: jnp.where(count < 2, 0.25, 9.0),
        f_min=lambda count: jnp.where(count < 1, 4.5, 0.0),
        c=1.0,
    )
    state, sizes = optimizer.init(w), []
    for _ in range(3):
        _, state = optimizer.update(w, state, value=5.0)
        sizes.append(state.step_size)
    np.testing.assert_allclose(sizes, [0.1, 0.25, 1.0], rtol=1e-6)


@given(
    gap=st.floats(width=32, allow_nan=False, allow_infinity=False),
    square=st.floats(0, width=32, allow_infinity=False),
    cap=st.floats(0, width=32),
)
@example(gap=1e30, square=1e-30, cap=np.inf)
@settings(max_examples=200, deadline=None)
def test_step_sizes_are_finite_never_negative_never_above_the_cap(gap, square, cap):
    step = polyak_step(jnp.float32(gap), jnp.float32(square), cap)
    assert np.isfinite(step)
    assert 0 <= step <= cap
    if gap <= 0 or square == 0:
        assert step == 0


@pytest.mark.parametrize("broken", ["value", "gradient"])
def test_lost_numbers_show_at_once(broken):
    """NaN and infinities reach every leaf, also one whose gradient is zero."""
    for bad in (np.nan, np.inf, -np.inf):
        value, entry = (bad, 1.0) if broken == "value" else (1.0, bad)
        grads = {"a": jnp.array([entry, 1.0]), "zero": jnp.zeros(3)}
        optimizer = optimizers.sps(0.1)
        updates, state = optimizer.update(grads, optimizer.init(grads), value=value)
        assert np.isnan(state.step_size)
        assert all(np.isnan(leaf).all() for leaf in jax.tree.leaves(updates))


def test_norms_of_bfloat16_leaves_are_summed_in_float32():
    """4225 ones make 4224 in bfloat16."""
    tree = {"a": jnp.ones((65, 65), jnp.bfloat16), "b": jnp.full(3, 0.5, jnp.float32)}
    assert inner_product(tree, tree) == 4225.75
    optimizer = optimizers.sps(c=1.0)
    updates, state = optimizer.update(tree, optimizer.init(tree), value=4225.75)
    assert state.step_size == 1.0
    assert updates["a"].dtype == jnp.bfloat16


def test_step_size_is_read_from_inside_a_chain():
    w = jnp.array([1.0, 2.0])
    chain = optax.chain(optax.clip_by_global_norm(1e9), optimizers.sps(c=1.0))
    _, state = chain.update(w, chain.init(w), w, value=2.5)
    assert optax.tree.get(state, "step_size") == 0.5


def test_refusals_name_the_argument():
    w = jnp.ones(2)
    optimizer = optimizers.sps()
    with pytest.raises(ValueError, match="`value`"):
        optimizer.update(w, optimizer.init(w), w)
    with pytest.raises(ValueError, match="value must be a scalar loss"):
        optimizer.update(w, optimizer.init(w), w, value=w)
    with pytest.raises(ValueError, match=r"variant='sps\+' is not one of"):
        optimizers.sps(variant="sps+")
    with pytest.raises(ValueError, match="c does not apply to variant 'plus'"):
        optimizers.sps(variant="plus", c=0.5)
    with pytest.raises(ValueError, match="max_learning_rate must be a scalar"):
        optimizers.sps(jnp.ones(2))
