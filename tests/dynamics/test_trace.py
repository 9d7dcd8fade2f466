"""Trace estimators against their exact cases and their known variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.dynamics.trace import hutch_plus_plus_trace, hutchinson_trace


def test_hutchinson_is_exact_for_a_diagonal_and_honest_about_its_error():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20, 20))
    matrix = jnp.asarray(matrix + matrix.T, jnp.float32)
    diagonal = jnp.diag(jnp.diag(matrix))
    keys = jax.random.split(jax.random.key(1), 400)

    @jax.jit
    def traces(matrix):
        return jax.vmap(
            lambda key: hutchinson_trace(lambda v: matrix @ v, matrix[0], key=key)
        )(keys)

    trace = float(jnp.trace(matrix))
    exact, found = traces(diagonal), traces(matrix)
    np.testing.assert_allclose(exact.estimate, trace, rtol=1e-5)
    np.testing.assert_allclose(exact.standard_error, 0.0, atol=1e-5)
    # The variance of one term is 2 |A - diag A|², so of 16 terms an eighth of that.
    error = float(jnp.sqrt(jnp.sum((matrix - diagonal) ** 2) / 8))
    np.testing.assert_allclose(found.estimate.std(), error, rtol=0.1)
    reported = jnp.sqrt(jnp.mean(found.standard_error**2))
    np.testing.assert_allclose(reported, error, rtol=0.1)
    assert abs(float(found.estimate.mean()) - trace) < 4 * error / 20
    assert bool(jnp.isnan(hutchinson_trace(jnp.sin, jnp.ones(2), samples=1)[1]))


def test_hutch_plus_plus_is_exact_on_low_rank_and_better_on_decay(x64):
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(40, 40)))
    keys = jax.random.split(jax.random.key(2), 100)

    @jax.jit
    def estimates(matrix):
        return jax.vmap(
            lambda key: (
                hutch_plus_plus_trace(
                    lambda v: matrix @ v, matrix[0], samples=18, key=key
                ).estimate
            )
        )(keys)

    low = jnp.asarray((basis[:, :4] * [5.0, -3.0, 2.0, 1.0]) @ basis[:, :4].T)
    np.testing.assert_allclose(estimates(low), 5.0, rtol=1e-12)
    decaying = (basis / np.arange(1, 41) ** 2) @ basis.T
    found = np.asarray(estimates(jnp.asarray(decaying)))
    off_diagonal = decaying - np.diag(np.diag(decaying))
    hutchinson = np.sqrt(2 * np.sum(off_diagonal**2) / 18)
    errors = found - np.trace(decaying)
    assert np.sqrt(np.mean(errors**2)) < 0.2 * hutchinson
    assert abs(errors.mean()) < 4 * errors.std() / 10


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="samples: 0"):
        hutchinson_trace(lambda v: v, jnp.ones(2), samples=0)
    with pytest.raises(ValueError, match="samples: 2"):
        hutch_plus_plus_trace(lambda v: v, jnp.ones(2), samples=2)
