"""The noise scale on a linear model, where it is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.dynamics import (
    batch_cost,
    compare_groups,
    group_gradients,
    layers_of,
    noise_scale,
    pool,
    two_batch_noise_scale,
)

D, SIGMA = 5, 2.0
SOLUTION = np.linspace(-1.0, 1.0, D)
START = np.full(D, 0.5)


def regression(examples, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(examples, D))
    return {"x": x, "y": x @ SOLUTION + SIGMA * rng.normal(size=examples)}


def loss_fn(params, batch):
    return 0.5 * jnp.mean(jnp.square(batch["x"] @ params["w"] - batch["y"]))


def measured(batch, groups):
    seen, _ = group_gradients(loss_fn, {"w": jnp.asarray(START)}, batch, groups)
    return noise_scale(seen, len(batch["y"]) // groups)


# One example's gradient is x (x . delta - e) with x ~ N(0, 1), e ~ N(0, SIGMA^2).
SIGNAL = np.sum((START - SOLUTION) ** 2)
NOISE = (D + 1) * SIGNAL + D * SIGMA**2
# Variance of one example's gradient along the mean gradient, times its square.
ALONG = 2 * SIGNAL**2 + SIGMA**2 * SIGNAL


@pytest.mark.parametrize("groups", [40_000, 400], ids=["per example", "groups"])
def test_linear_regression_has_the_analytic_noise_scale(x64, groups):
    found = jax.jit(measured, static_argnums=1)(regression(40_000), groups)
    # Four standard errors, of a variance and of a squared mean.
    few = np.sqrt(2 / groups)
    np.testing.assert_allclose(found.noise, NOISE, rtol=4 * few + 0.02)
    deviation = np.sqrt(4 * ALONG / 40_000)
    np.testing.assert_allclose(found.signal, SIGNAL, atol=4 * deviation, rtol=0)
    assert abs(found.scale - NOISE / SIGNAL) < 3 * found.error
    assert 0 < found.error < 0.1 * found.scale


def test_the_error_is_the_spread_over_batches(x64):
    batches = [regression(256, seed) for seed in range(200)]
    stacked = jax.tree.map(lambda *xs: np.stack(xs), *batches)
    found = jax.jit(jax.vmap(lambda b: measured(b, 16)))(stacked)
    np.testing.assert_allclose(
        np.sqrt(np.mean(found.error**2)), np.std(found.scale), rtol=0.25
    )
    # Unbiased, so their means are near the truth where one batch is not.
    np.testing.assert_allclose(found.noise.mean(), NOISE, rtol=0.05)
    np.testing.assert_allclose(found.signal.mean(), SIGNAL, rtol=0.05)


def test_against_the_definitions(x64):
    """The two-batch formula, and a jackknife that really leaves groups out."""
    g = np.random.default_rng(0).normal(size=(6, 7)) + 1.0
    size = 4

    def scale(rows):
        large = np.sum(rows.mean(0) ** 2)
        small = np.mean(np.sum(rows**2, 1))
        return two_batch_noise_scale(
            jnp.asarray(small), jnp.asarray(large), size, size * len(rows)
        )

    seen, mean = compare_groups(
        {"a": jnp.asarray(g[:, :3]), "b": jnp.asarray(g[:, 3:])}
    )
    layers = layers_of(mean, "^(?:a|b)$")
    found = jax.tree.map(lambda x: x[-1], noise_scale(pool(seen, layers), size))
    wanted = scale(g)
    np.testing.assert_allclose(found[:3], wanted[:3], rtol=1e-12)
    without = [scale(np.delete(g, i, 0)).scale for i in range(6)]
    error = np.sqrt(5 / 6 * np.sum((without - np.mean(without)) ** 2))
    np.testing.assert_allclose(found.error, error, rtol=1e-10)


def test_what_cannot_be_estimated_is_nan():
    alone, _ = compare_groups({"w": jnp.ones((1, 3))})
    assert jnp.isnan(noise_scale(alone, 8).noise).all()
    pair, _ = compare_groups({"w": jnp.array([[1.0], [3.0]])})
    found = noise_scale(pair, 8)
    assert jnp.isfinite(found.scale).all()
    assert jnp.isnan(found.error).all()
    opposed, _ = compare_groups({"w": jnp.array([[1.0], [-1.0], [0.1]])})
    found = noise_scale(opposed, 8)
    assert found.signal[0] < 0
    assert jnp.isnan(found.scale).all()
    assert jnp.isnan(batch_cost(0.0, 10.0).steps)


def test_a_small_spread_about_a_large_mean_keeps_its_digits():
    """In float32 the sums of squares alone would agree to their last digit."""
    seen, _ = compare_groups({"w": 1000.0 + jnp.array([[-1.0], [1.0]]) / 16})
    np.testing.assert_allclose(noise_scale(seen, 1).noise, 2 / 256, rtol=1e-6)


def test_groups_that_do_not_divide_the_batch_are_refused():
    with pytest.raises(ValueError, match="groups=3 must divide the batch's 8 examples"):
        measured(regression(8), 3)


def test_critical_batch_model_trades_steps_for_examples():
    batch, scale = jnp.array([1.0, 30.0, 1000.0]), 300.0
    cost = batch_cost(batch, scale)
    np.testing.assert_allclose((cost.steps - 1) * (cost.examples - 1), 1, rtol=1e-5)
    np.testing.assert_allclose(cost.learning_rate * cost.steps, 1, rtol=1e-6)


def test_sharded_batch_and_bfloat16_parameters():
    from jax.sharding import NamedSharding
    from jax.sharding import PartitionSpec as P

    batch = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), regression(64))
    mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Auto,))
    split = jax.device_put(batch, NamedSharding(mesh, P("x")))
    params = {"w": jnp.asarray(START, jnp.float32)}
    look = jax.jit(lambda b: noise_scale(group_gradients(loss_fn, params, b, 8)[0], 8))
    for a, b in zip(look(split), look(batch), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4)
    seen, mean = compare_groups({"w": jnp.ones((4, 3), jnp.bfloat16)})
    assert seen.deviation.dtype == jnp.float32
    assert mean["w"].dtype == jnp.bfloat16
