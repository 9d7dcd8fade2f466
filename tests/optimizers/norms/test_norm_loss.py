"""Norm loss: the gradient of its loss, weight decay as a special case, and its pull."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.optimizers import scale_by_adamp
from gnomon.optimizers.norms.norm_loss import add_norm_loss, norm_loss
from gnomon_contract import Row, Verified
from gnomon_contract.layers import ascending, descending

ROWS = (
    Row(
        "norm_loss",
        norm_loss,
        {"learning_rate": 0.05, "rate": 1e-5, "target": 2.0, "eps": 1e-8},
        {"direction": scale_by_adamp(b2=0.99)},
    ),
)
LAYERS = {
    "add_norm_loss": lambda **s: descending(add_norm_loss(0.5, view="layer", **s)),
    "norm_loss": lambda i, **s: norm_loss(ascending(i), 0.1, rate=0.1, **s),
}
VERIFIED = {"norm_loss": Verified("B05", "NumPy", 1e-10)}


@pytest.mark.parametrize("view", ["unit", "layer"])
def test_equals_a_numpy_transcription(x64, oracle, view):
    """Adam with the decoupled pull, whose rate falls step by step."""
    rate, b1, b2, eps, target = 0.03, 0.9, 0.97, 1e-8, 1.5

    def rule(w, g, memory, t):
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
        u = (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        if w.ndim < 2:
            return w - rate * u, "free"
        axis = 1 if view == "unit" else None
        norm = np.sqrt(np.sum(w * w, axis=axis, keepdims=True))
        decay = 2 * 0.9 ** (t - 1) * (1 - target / (norm + 1e-3))
        return w - rate * (u + decay * w), "pulled"

    optimizer = norm_loss(
        scale_by_adamp(b1, b2, eps, delta=0.0),
        rate,
        rate=lambda count: 0.9 ** count.astype(float),
        target=target,
        eps=1e-3,
        view=view,
        stacked="^blocks/",
    )
    views = oracle.compare(optimizer, rule, steps=60, atol=1e-10)
    assert set(views) == {"free", "pulled"}


floats = st.floats(-5, 5, allow_subnormal=False, width=32)
kernels = st.lists(
    st.lists(floats, min_size=3, max_size=3).filter(
        lambda row: min(np.abs(row)) > 1e-3
    ),
    min_size=2,
    max_size=4,
)


@settings(max_examples=40, deadline=None)
@given(kernels, st.floats(0.0, 3.0), st.floats(0.0, 1.0))
def test_is_the_gradient_of_the_loss_on_norms(rows, target, rate):
    with jax.enable_x64(True):
        w = jnp.asarray(rows)

        def loss(w):
            return rate * jnp.sum((jnp.linalg.norm(w, axis=0) - target) ** 2)

        pull = add_norm_loss(rate, target=target, eps=0.0)
        updates, _ = pull.update(jnp.zeros_like(w), pull.init(w), w)
        np.testing.assert_allclose(updates, jax.grad(loss)(w), rtol=1e-9, atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(kernels, st.floats(0.0, 3.0), st.floats(0.001, 0.4))
def test_the_pull_alone_brings_every_norm_nearer_to_the_target(rows, target, rate):
    """By the factor 1 - 2 rate, and turns nothing."""
    with jax.enable_x64(True):
        w = jnp.asarray(rows)
        optimizer = norm_loss(optax.identity(), 1.0, rate=rate, target=target, eps=0.0)
        updates, _ = optimizer.update(jnp.zeros_like(w), optimizer.init(w), w)
        before, after = (jnp.linalg.norm(x, axis=0) for x in (w, w + updates))
        wanted = target + (1 - 2 * rate) * (before - target)
        np.testing.assert_allclose(after, wanted, rtol=1e-9, atol=1e-12)
        cosine = jnp.sum(w * (w + updates), axis=0) / (before * after)
        np.testing.assert_allclose(cosine, 1.0, rtol=1e-12)


def test_target_zero_is_weight_decay_at_twice_the_rate():
    params = {"kernel": jnp.linspace(-1, 2, 6).reshape(3, 2), "bias": jnp.ones(2)}
    grads = jax.tree.map(jnp.cos, params)
    pull = add_norm_loss(0.05, target=0.0)
    decay = optax.add_decayed_weights(0.1, {"kernel": True, "bias": False})
    got, _ = pull.update(grads, pull.init(params), params)
    wanted, _ = decay.update(grads, decay.init(params), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), got, wanted)


def test_a_zero_unit_has_no_direction_and_is_not_moved():
    w = jnp.zeros((3, 2)).at[:, 1].set(0.1)
    for eps in (0.0, 1e-8):
        pull = add_norm_loss(1.0, eps=eps)
        updates, _ = pull.update(jnp.zeros_like(w), pull.init(w), w)
        np.testing.assert_array_equal(updates[:, 0], 0.0)
        assert jnp.all(updates[:, 1] < 0)


def test_scanned_layers_are_pulled_as_layers_of_their_own():
    w = jax.random.normal(jax.random.key(0), (3, 4, 2))
    stacked = add_norm_loss(0.1, view="layer", stacked="blocks")
    params = {"blocks": w}
    updates, _ = stacked.update(
        {"blocks": jnp.zeros_like(w)}, stacked.init(params), params
    )
    alone = add_norm_loss(0.1, view="layer")
    for layer, update in zip(w, updates["blocks"], strict=True):
        wanted, _ = alone.update(jnp.zeros_like(layer), alone.init(layer), layer)
        np.testing.assert_allclose(update, wanted, rtol=1e-6)


def test_hyperparameters_must_be_numbers():
    for name in ("rate", "target", "eps"):
        with pytest.raises(ValueError, match=f"^{name} must be a scalar"):
            add_norm_loss(**{name: jnp.ones(2)})
