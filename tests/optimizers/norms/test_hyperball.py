"""Hyperball: the norm stays, and the learning rate is the angle of a step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import pallas as pl
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.optimizers import apply_fused, scale_by_adamp
from gnomon.optimizers.norms.hyperball import hyperball
from gnomon_contract import Row, Verified, matrices
from gnomon_contract.layers import ascending

# A norm that is held must be that of the target, 0.1 * arange(32): 10.206.
ROWS = (
    Row(
        "hyperball",
        hyperball,
        {"learning_rate": 0.01, "floor": 10.206},
        {"direction": scale_by_adamp(b2=0.99), "constrained": matrices},
    ),
)
LAYERS = {"hyperball": lambda i, **s: hyperball(ascending(i), 0.1, **s)}
VERIFIED = {"hyperball": Verified("", "NumPy", 1e-10)}


@pytest.mark.parametrize("view", ["layer", "unit"])
def test_equals_a_numpy_transcription(x64, oracle, view):
    """AdamH with a decaying angle; free leaves step at a rate of their own."""
    b1, b2, eps = 0.9, 0.97, 1e-8

    def rule(w, g, memory, t):
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
        u = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        if w.ndim < 2:
            return w - 0.01 * u, "free"
        axis = 1 if view == "unit" else None
        if t == 1:
            memory["R"] = np.sqrt(np.sum(w * w, axis=axis, keepdims=True))
        R = memory["R"]
        moved = w - 0.1 * 0.97 ** (t - 1) * R * u / np.sqrt(
            np.sum(u * u, axis=axis, keepdims=True)
        )
        norm = np.sqrt(np.sum(moved * moved, axis=axis, keepdims=True))
        return R * moved / norm, "held"

    optimizer = hyperball(
        scale_by_adamp(b1, b2, eps, delta=0.0),
        lambda count: 0.1 * 0.97 ** count.astype(float),
        free_learning_rate=0.01,
        constrained="kernel|embedding",
        view=view,
        stacked="^blocks/",
    )
    assert set(oracle.compare(optimizer, rule, steps=60, atol=1e-10)) == {
        "free",
        "held",
    }


floats = st.floats(-3, 3, allow_subnormal=False, width=32)
vectors = st.lists(floats, min_size=6, max_size=6).filter(
    lambda w: np.linalg.norm(w) > 0.1
)


@settings(max_examples=60, deadline=None)
@given(vectors, vectors, st.floats(0.001, 1.0), st.floats(0.001, 1000.0))
def test_the_learning_rate_is_the_angle_of_an_orthogonal_step(w, g, rate, scale):
    """Whatever the size of the direction, and the norm is kept."""
    with jax.enable_x64(True):
        w, g = (jnp.asarray(x).reshape(3, 2) for x in (w, g))
        g = g - w * jnp.sum(w * g) / jnp.sum(w * w)
        if jnp.linalg.norm(g) < 1e-3:
            return
        optimizer = hyperball(optax.identity(), rate)
        updates, _ = optimizer.update(scale * g, optimizer.init(w), w)
        moved, radius = w + updates, jnp.linalg.norm(w)
        np.testing.assert_allclose(jnp.linalg.norm(moved), radius, rtol=1e-12)
        angle = jnp.arctan2(
            jnp.linalg.norm(moved - w * jnp.sum(moved * w) / radius**2) / radius,
            jnp.sum(moved * w) / radius**2,
        )
        np.testing.assert_allclose(angle, np.arctan(rate), rtol=1e-9)


def test_the_norm_is_that_of_the_start_after_many_steps(x64):
    params = {"kernel": jax.random.normal(jax.random.key(0), (8, 4))}
    optimizer = hyperball(scale_by_adamp(), 0.3)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    first = jnp.linalg.norm(params["kernel"])
    for step in range(200):
        updates, state = update(jax.tree.map(jnp.sin, params), state, params)
        params = optax.apply_updates(params, updates)
        assert jnp.abs(jnp.linalg.norm(params["kernel"]) / first - 1) < 1e-12
        if step == 0:
            after_one = params["kernel"]
    np.testing.assert_allclose(np.squeeze(state.radius["kernel"]), first, rtol=1e-15)
    assert jnp.abs(params["kernel"] - after_one).max() > 0.1


def test_a_zero_direction_moves_nothing_and_a_zero_leaf_learns():
    """A leaf of radius zero is treated as a free one, unless it is given a floor."""
    params = {"kernel": jnp.zeros((2, 2)), "still": jnp.full((2, 2), 2.0)}
    grads = {"kernel": jnp.ones((2, 2)), "still": jnp.zeros((2, 2))}
    free = hyperball(optax.identity(), 0.5, free_learning_rate=0.1)
    state = free.init(params)
    for step in range(1, 4):
        updates, state = free.update(grads, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_allclose(params["kernel"], -0.1 * step, rtol=1e-6)
        np.testing.assert_allclose(params["still"], 2.0, rtol=1e-6)
    raised = hyperball(optax.identity(), 0.5, floor=3.0)
    updates, _ = raised.update(
        grads, raised.init(params), jax.tree.map(jnp.zeros_like, params)
    )
    assert jnp.linalg.norm(updates["kernel"]) == pytest.approx(3.0, rel=1e-6)


def test_embeddings_and_vectors_are_free_by_default():
    params = {
        "embed": {"embedding": jnp.ones((3, 2))},
        "head": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    }
    grads = jax.tree.map(lambda w: jnp.cos(jnp.arange(w.size)).reshape(w.shape), params)
    optimizer = hyperball(optax.identity(), 0.1)
    updates, _ = optimizer.update(grads, optimizer.init(params), params)
    for path in (("embed", "embedding"), ("head", "bias")):
        a, b = ((tree[path[0]][path[1]]) for tree in (updates, grads))
        np.testing.assert_allclose(a, -0.1 * b, rtol=1e-6)
    head = params["head"]["kernel"] + updates["head"]["kernel"]
    assert jnp.linalg.norm(head) == pytest.approx(6**0.5, rel=1e-6)


def test_learning_rates_must_be_numbers_or_schedules():
    for name in ("learning_rate", "free_learning_rate"):
        rates = {"learning_rate": 0.1, name: jnp.ones(2)}
        with pytest.raises(ValueError, match=f"^{name} must be a scalar"):
            hyperball(optax.identity(), **rates)


@pytest.mark.parametrize("view", ["layer", "unit"])
def test_fused_equals_update_and_apply_updates(x64, monkeypatch, view):
    """By a kernel, sharded: a free leaf, one that starts at zero, one without grad."""
    interpreted = functools.partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(pl, "pallas_call", interpreted)
    generator = np.random.default_rng(0)
    params = {
        "kernel": jnp.asarray(generator.normal(size=(8, 4))),
        "zero": {"kernel": jnp.zeros((8, 4))},
        "bias": jnp.ones(8),
        "still": jnp.ones(8),
    }
    grads = jax.tree.map(jnp.cos, params) | {"still": None}
    optimizer = hyperball(
        optax.trace(0.9), 0.2, free_learning_rate=0.1, view=view, implementation="tpu"
    )
    updates, theirs = optimizer.update(grads, optimizer.init(params), params)
    want = optax.apply_updates(params, updates | {"still": jnp.zeros(8)})

    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = NamedSharding(mesh, P("data"))
    sharded = jax.device_put(params, sharding)
    fused = functools.partial(apply_fused, optimizer, shardings=sharding)
    got, ours = jax.jit(fused)(grads, optimizer.init(sharded), sharded)
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=1e-12, atol=1e-15),
        (got, ours),
        (want, theirs),
    )


def test_without_a_kernel_the_fused_step_is_update_to_the_bit(no_gpu_kernels):
    params = {"kernel": jnp.linspace(0.1, 2.0, 6).reshape(2, 3)}
    optimizer = hyperball(optax.trace(0.9), 0.2)
    state = optimizer.init(params)
    updates, _ = optimizer.update(params, state, params)
    got, _ = apply_fused(optimizer, params, state, params)
    want = optax.apply_updates(params, updates)
    np.testing.assert_array_equal(got["kernel"], want["kernel"])
    with pytest.raises(ValueError, match="gpu kernel of fixed_norm does not support"):
        hyperball(optax.trace(0.9), 0.2, implementation="gpu")
