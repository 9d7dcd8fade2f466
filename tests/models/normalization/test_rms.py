"""RMSNorm: its row of the contract, and what it is named for."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gnomon.models.normalization import RMSNorm


def definition(x, *, scale, train):
    return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * np.asarray(scale)


CONTRACT = {
    "norm": RMSNorm,
    "definition": definition,
    "invariances": ["row_scale", "rotation"],
}


def test_rows_have_unit_root_mean_square_unless_epsilon_is_larger():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16)), jnp.float32)
    norm = RMSNorm(16, epsilon=1e-4, rngs=nnx.Rngs(0))
    y = norm(1e3 * x, train=True)
    np.testing.assert_allclose(jnp.mean(y**2, -1), np.ones(4), rtol=1e-5)
    # Far below epsilon the row is divided by epsilon's root alone.
    small = norm(1e-5 * x, train=True)
    np.testing.assert_allclose(small, 1e-3 * x, rtol=1e-4)
