"""Forward statistics against NumPy."""

import jax.numpy as jnp
import numpy as np

from gnomon.dynamics import activations, logits


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
