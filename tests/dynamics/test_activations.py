"""Forward statistics against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.dynamics import activations, layer_activations, layers_of, logits
from gnomon.models import MLP, functional


def test_against_numpy():
    x = np.random.default_rng(0).normal(size=(2, 5, 7)).astype(np.float32)
    x[..., 3] = 0  # a unit that no example reaches
    x[..., 4] = -np.abs(x[..., 4])
    seen = activations(jnp.asarray(x))
    rows = x.reshape(10, 7)
    np.testing.assert_allclose(seen.dead, 2 / 7, rtol=1e-6)
    np.testing.assert_allclose(seen.maximum, np.abs(x).max())
    np.testing.assert_allclose(seen.rms, np.sqrt(np.mean(x**2)), rtol=1e-6)
    np.testing.assert_allclose(seen.channel_mean, np.mean(rows.mean(0) ** 2), rtol=1e-5)
    np.testing.assert_allclose(
        seen.channel_variance, np.mean(rows.var(0, ddof=1)), rtol=1e-5
    )
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(logits(jnp.asarray(x)).norm, norms.mean(), rtol=1e-6)


def test_one_example_has_no_variance_and_none_has_nothing():
    assert jnp.isnan(activations(jnp.ones((1, 3))).channel_variance)
    assert jnp.isnan(jnp.stack(activations(jnp.ones((0, 3))))).all()
    assert jnp.isnan(jnp.stack(logits(jnp.ones((0, 3))))).all()


def test_bfloat16_is_summed_in_float32():
    seen = logits(jnp.ones((2, 4096), jnp.bfloat16))
    assert seen.norm.dtype == jnp.float32
    assert seen.norm == 64.0


def test_dead_units_of_a_network_are_found_in_its_layers():
    """Three of four and one of two units held down by their biases, then pooled."""
    net = functional(MLP, inputs=3, widths=(4, 2), classes=2)
    params, stats = jax.device_get(jax.jit(net.init)(jax.random.key(0)))
    for layer, bias in (("0", [-99.0, -99.0, -99.0, 99.0]), ("1", [-1e4, 1e4])):
        params["hidden"][layer]["bias"] = jnp.array(bias)
    inputs = jax.random.normal(jax.random.key(1), (8, 3))
    look = jax.jit(net.activations, static_argnames="train")
    outputs = look(params, stats, inputs, train=True)
    rows = {}
    for pattern in (None, "hidden", "head/bias"):
        layers = layers_of(params, pattern)
        seen = layer_activations(outputs, layers)
        rows[pattern] = dict(zip(layers.names, seen.dead, strict=True))
    assert rows[None]["hidden/0"] == 3 / 4
    assert rows[None]["hidden/1"] == 1 / 2
    np.testing.assert_allclose(rows["hidden"]["hidden"], 4 / 6, rtol=1e-6)
    assert seen.maximum[0] == jnp.abs(outputs["head"]).max()
    nothing = layer_activations({}, layers)
    assert jnp.isnan(jnp.stack(nothing)).all()
