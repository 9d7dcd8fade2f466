"""The wrapper keeps records and changes nothing else."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.dynamics import (
    Motion,
    layer_motion,
    layers_of,
    mean_gradient_cosines,
    measure,
    records,
)

# In the order of the tree ``all`` comes last, in that of the names first.
PARAMS = {
    "up": {"kernel": jnp.linspace(-1.0, 2.0, 12).reshape(3, 4), "bias": jnp.ones(4)},
    "zoom": {"scale": jnp.linspace(0.5, 2.0, 4)},
}


def gradient(step):
    return jax.tree.map(lambda p: jnp.cos(p + step), PARAMS)


def run(optimizer, steps):
    """The updates and the states of a jitted loop."""

    def step(carry, t):
        params, state = carry
        updates, state = optimizer.update(gradient(t), state, params)
        return (optax.apply_updates(params, updates), state), (params, updates, state)

    start = (PARAMS, optimizer.init(PARAMS))
    times = jnp.arange(steps, dtype=jnp.float32)
    return jax.jit(lambda s: jax.lax.scan(step, s, times)[1])(start)


def rising(step):
    return 0.1 * (step.astype(jnp.float32) + 1.0)


@pytest.fixture(scope="module")
def seen():
    inner = optax.sgd(0.1, momentum=0.9)
    optimizer = measure(inner, learning_rate=rising, every=2)
    plain = run(inner, 4)
    return plain, run(optax.chain(optax.identity(), optimizer), 4)


def test_updates_pass_bit_for_bit(seen):
    (_, plain, _), (_, measured, _) = seen
    jax.tree.map(np.testing.assert_array_equal, plain, measured)


def test_records_hold_the_last_measured_step_by_layer(seen):
    """Inside a chain, under jit and scan; every=2, so step 3 still shows step 2."""
    _, (params, updates, states) = seen
    last = jax.tree.map(lambda x: x[3], states)
    at = jax.tree.map(lambda x: x[2], (params, updates))
    wanted = layer_motion(*at, gradient(2.0), learning_rate=0.3)
    found = records(last)
    names = (*layers_of(PARAMS).names, "all")
    assert set(found) == set(names) == {"up", "zoom", "all"}
    for i, name in enumerate(names):
        for field, a, b in zip(Motion._fields, found[name], wanted, strict=True):
            np.testing.assert_allclose(a, b[i], 1e-5, err_msg=f"{field} of {name}")


def test_cosines_are_averaged_over_measured_steps(seen):
    _, (params, _, states) = seen
    means = mean_gradient_cosines(jax.tree.map(lambda x: x[3], states))
    at = [jax.tree.map(lambda x, t=t: x[t], params) for t in (0, 2)]
    cosines = [
        layer_motion(p, grads=gradient(t)).gradient_cosine
        for p, t in zip(at, (0.0, 2.0), strict=True)
    ]
    np.testing.assert_allclose(
        [means[name] for name in ("up", "zoom", "all")], np.mean(cosines, 0), 1e-5
    )


def test_before_the_first_step_all_is_nan():
    state = measure(optax.sgd(0.1)).init(PARAMS)
    assert all(jnp.isnan(x) for r in records(state).values() for x in r)
    assert all(jnp.isnan(x) for x in mean_gradient_cosines(state).values())


def test_a_vmapped_grid_of_rates_has_a_record_each():
    def step(rate):
        optimizer = measure(optax.sgd(rate), learning_rate=rate)
        _, state = optimizer.update(gradient(0.0), optimizer.init(PARAMS), PARAMS)
        return records(state)["all"].update_norm

    rates = jnp.array([0.1, 0.2, 0.4])
    norms = jax.jit(jax.vmap(step))(rates)
    np.testing.assert_allclose(norms / norms[0], rates / rates[0], rtol=1e-6)


def test_misuse_is_refused():
    state = measure(optax.sgd(0.1)).init(PARAMS)
    with pytest.raises(ValueError, match="measure needs the current parameters"):
        measure(optax.sgd(0.1)).update(PARAMS, state)
    with pytest.raises(ValueError, match=r"holds 0 records of measure"):
        records(optax.sgd(0.1).init(PARAMS))
    with pytest.raises(ValueError, match=r"holds 2 records of measure"):
        records((state, state))
    with pytest.raises(ValueError, match="matches no parameter path"):
        measure(optax.sgd(0.1), layers="down").init(PARAMS)
