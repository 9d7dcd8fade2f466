"""BatchNorm: its row of the contract, and how its statistics move."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gnomon.models.normalization import BatchNorm


def definition(x, *, scale, bias, mean, var, train):
    axes = tuple(range(x.ndim - 1))
    if train:
        mean, var = x.mean(axes), x.var(axes)
    normal = (x - np.asarray(mean)) / np.sqrt(np.asarray(var) + 1e-5)
    return normal * np.asarray(scale) + np.asarray(bias)


CONTRACT = {
    "norm": BatchNorm,
    "definition": definition,
    "invariances": ["feature_scale", "feature_shift"],
}


def test_statistics_are_moving_averages_of_the_batches():
    norm = BatchNorm(3, momentum=0.75, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    mean, var = np.zeros(3), np.ones(3)
    for _ in range(4):
        x = rng.normal(1.0, 2.0, (5, 2, 3)).astype(np.float32)
        norm(jnp.asarray(x), train=True)
        mean = 0.75 * mean + 0.25 * x.mean((0, 1))
        var = 0.75 * var + 0.25 * x.var((0, 1))
    np.testing.assert_allclose(norm.mean[...], mean, rtol=1e-5)
    np.testing.assert_allclose(norm.var[...], var, rtol=1e-5)
