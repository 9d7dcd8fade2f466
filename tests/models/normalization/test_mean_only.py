"""Mean-only batch normalization against its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gnomon.models import MeanOnlyBatchNorm, functional


def definition(x, *, bias, mean, train):
    if train:
        mean = x.mean(tuple(range(x.ndim - 1)))
    return x - np.asarray(mean) + np.asarray(bias)


CONTRACT = {
    "norm": MeanOnlyBatchNorm,
    "definition": definition,
    "invariances": ["feature_shift", "rotation"],
}


@pytest.fixture
def norm():
    return functional(MeanOnlyBatchNorm, features=3)


def batches(count=4, shape=(5, 2, 3)):
    generator = np.random.default_rng(0)
    return generator.normal(2.0, 3.0, size=(count, *shape)).astype(np.float32)


def test_training_centers_every_feature_and_divides_by_nothing(norm):
    params, stats = norm.init(jax.random.key(0))
    params = {"bias": jnp.array([0.5, -1.0, 0.0])}
    x = batches()[0]
    y, _ = norm.apply(params, stats, x, train=True)
    np.testing.assert_allclose(y.mean((0, 1)), params["bias"], atol=1e-6)
    np.testing.assert_allclose(y.std((0, 1)), x.std((0, 1)), rtol=1e-5)


def test_running_mean_is_the_moving_average_and_serves_evaluation(norm):
    params, stats = norm.init(jax.random.key(0))
    wanted = np.zeros(3)
    for x in batches():
        _, stats = norm.apply(params, stats, x, train=True)
        wanted = 0.9 * wanted + 0.1 * x.mean((0, 1))
    np.testing.assert_allclose(stats["mean"], wanted, rtol=1e-5)
    x = batches()[0]
    y, after = norm.apply(params, stats, x, train=False)
    np.testing.assert_allclose(y, x - wanted.astype(np.float32), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(after["mean"], stats["mean"])


def test_a_constant_added_to_the_input_is_not_seen_in_training(norm):
    """So the layer before needs no bias, and the gradient is centered."""
    params, stats = norm.init(jax.random.key(0))
    x = batches()[0]
    weights = jnp.asarray(batches()[1])

    def outputs(x):
        return norm.apply(params, stats, x, train=True)[0]

    np.testing.assert_allclose(outputs(x + 7.0), outputs(x), atol=1e-5)
    grad = jax.grad(lambda x: jnp.sum(weights * outputs(x)))(x)
    np.testing.assert_allclose(
        grad, weights - weights.mean((0, 1), keepdims=True), atol=1e-5
    )


def test_bfloat16_inputs_are_averaged_in_float32():
    """A mean of 4096 entries near one, summed in bfloat16, would stop at 256."""
    norm = MeanOnlyBatchNorm(1, momentum=0.0, rngs=nnx.Rngs(0))
    y = norm(jnp.ones((4096, 1), jnp.bfloat16), train=True)
    assert y.dtype == jnp.bfloat16
    assert norm.mean[...].dtype == jnp.float32
    np.testing.assert_array_equal(norm.mean[...], [1.0])
    assert not y.astype(jnp.float32).any()
