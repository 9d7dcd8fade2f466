"""Matrix factorization predicts and learns what its formula says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.models import Factorization


def test_predictions_are_biases_plus_products(build):
    apply, params, stats = build(Factorization, rows=5, columns=7, rank=3, mean=2.0)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), params)
    pairs = np.stack([rng.integers(0, 5, 20), rng.integers(0, 7, 20)], axis=1)
    found, _ = apply(params, stats, jnp.asarray(pairs), train=True)
    u, v = params["rows"]["embedding"], params["columns"]["embedding"]
    table = u @ v.T + params["row_bias"][:, None] + params["column_bias"]
    table = table + params["mean"]
    np.testing.assert_allclose(found, table[pairs[:, 0], pairs[:, 1]], rtol=1e-5)


def test_it_starts_at_the_mean(build):
    apply, params, stats = build(Factorization, rows=50, columns=70, mean=3.5)
    pairs = jnp.stack([jnp.arange(50), jnp.arange(50)], axis=1)
    found, _ = apply(params, stats, pairs, train=False)
    assert abs(found.mean() - 3.5) < 0.01
    assert 0.003 < found.std() < 0.03  # 0.01 by the initial scale


def test_a_size_below_one_is_named():
    with pytest.raises(ValueError, match="rank: 0"):
        Factorization(3, 3, 0, rngs=None)
