"""Curvature against dense Hessians and closed forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.dynamics.curvature import (
    adam_denominator,
    heavy_ball_optimum,
    hessian_operator,
    hessian_vector_product,
    stability_ratio,
    top_eigenpairs,
    top_eigenvalues,
)
from gnomon.dynamics.lanczos import ravel, unravel
from gnomon.dynamics.trace import hutch_plus_plus_trace


def network(dtype="float32"):
    """A small MLP's loss, parameters, and the dense Hessian's function."""
    rng = np.random.default_rng(0)
    params = {
        "first": rng.normal(size=(4, 8)) / 2,
        "bias": rng.normal(size=8) / 2,
        "second": rng.normal(size=(8, 3)) / 3,
    }
    params = {name: jnp.asarray(x, dtype) for name, x in params.items()}
    inputs, labels = rng.normal(size=(16, 4)), rng.integers(0, 3, size=16)

    def loss(params):
        x = jnp.asarray(inputs, params["first"].dtype)
        x = jnp.tanh(x @ params["first"] + params["bias"][None])
        logits = x @ params["second"]
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss, params


@functools.cache
def dense_hessian():
    """The network's Hessian in float64, by differentiating every gradient entry."""
    loss, params = network("float64")
    return np.asarray(
        jax.jit(jax.hessian(lambda v: loss(unravel(v, params))))(ravel(params))
    )


def test_eigenpairs_of_a_network_against_the_dense_hessian(x64):
    loss, params = network("float64")
    hessian = dense_hessian()
    pairs = jax.jit(lambda p: top_eigenpairs(loss, p, k=3, iterations=40))(params)
    np.testing.assert_allclose(
        pairs.values, np.linalg.eigvalsh(hessian)[::-1][:3], rtol=1e-9
    )
    assert float(pairs.errors[0]) < 1e-8 * pairs.values[0]
    vectors = jax.vmap(ravel)(pairs.vectors)
    np.testing.assert_allclose(vectors @ vectors.T, np.eye(3), atol=1e-12)
    np.testing.assert_allclose(
        vectors @ hessian, np.asarray(pairs.values)[:, None] * vectors, atol=1e-6
    )


def test_preconditioned_sharpness_against_the_dense_matrix(x64):
    """After Adam steps, `P⁻¹H` itself (not symmetric) has the same top eigenvalue."""
    loss, params = network("float64")
    gradient = jax.jit(jax.grad(loss))(params)
    # Three Adam steps on one gradient: ν = (1 − b2³) g².
    nu = jax.tree.map(lambda g: (1 - 0.95**3) * g**2, gradient)
    state = optax.ScaleByAdamState(jnp.int32(3), gradient, nu)
    denominator = adam_denominator((state, optax.EmptyState()), b2=0.95, eps=1e-3)
    corrected = jax.tree.map(lambda g: jnp.abs(g) + 1e-3, gradient)
    diagonal = (1 - 0.9**3) * ravel(corrected)
    np.testing.assert_allclose(ravel(denominator), diagonal, rtol=1e-6)
    expected = np.linalg.eigvals(dense_hessian() / np.asarray(diagonal)[:, None]).real
    found = jax.jit(
        lambda p: top_eigenvalues(loss, params, iterations=40, denominator=p)
    )(denominator)
    np.testing.assert_allclose(found.values[0], expected.max(), rtol=1e-6)
    np.testing.assert_allclose(found.smallest, expected.min(), rtol=1e-4)


def test_adam_denominator_wants_one_second_moment():
    state = optax.ScaleByAdamState(jnp.int32(1), jnp.ones(2), jnp.ones(2))
    with pytest.raises(ValueError, match="opt_state: 0 states"):
        adam_denominator(optax.EmptyState())
    with pytest.raises(ValueError, match="opt_state: 2 states"):
        adam_denominator((state, state))
    fresh = state._replace(count=jnp.int32(0), nu=jnp.zeros(2))
    assert bool(jnp.isnan(adam_denominator(fresh)).all())


def test_bfloat16_parameters_have_the_hessian_of_their_float32_copy():
    loss, params = network("bfloat16")
    wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    vector = jax.tree.map(jnp.ones_like, params)
    product_at = jax.jit(lambda p: hessian_vector_product(loss, p, vector))
    narrow_product, product = product_at(params), product_at(wide)
    assert all(x.dtype == jnp.float32 for x in jax.tree.leaves(narrow_product))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, narrow_product, product))


def test_equal_with_either_basis_under_vmap_and_on_eight_devices():
    loss, params = network()
    many = jax.tree.map(lambda x: jnp.stack([x, 0.5 * x]), params)

    def sharpness(params, raveled=True):
        return top_eigenvalues(loss, params, iterations=12, raveled=raveled).values[0]

    expected = jax.jit(lambda p: sharpness(p, raveled=False))(params)
    vmapped = jax.jit(jax.vmap(sharpness))(many)
    np.testing.assert_allclose(vmapped[0], expected, rtol=1e-4)
    mesh = jax.make_mesh((8,), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    specs = {"first": P(None, "d"), "bias": P("d"), "second": P("d", None)}
    sharded = {
        name: jax.device_put(x, NamedSharding(mesh, specs[name]))
        for name, x in params.items()
    }
    np.testing.assert_allclose(jax.jit(sharpness)(sharded), expected, rtol=1e-4)


def test_what_cannot_be_computed_is_nan():
    """A third eigenvalue of two, a zero denominator, a weight that is not finite."""
    scale = jnp.array([1.0, 5.0])  # the Hessian of Σ s w⁴ / 12 is s w²

    @jax.jit
    def top(weights, denominator):
        return top_eigenvalues(
            lambda w: jnp.sum(scale * w**4) / 12, weights, k=3, denominator=denominator
        ).values

    ones = jnp.ones(2)
    np.testing.assert_allclose(top(ones, ones), [5.0, 1.0, np.nan], rtol=1e-5)
    assert bool(jnp.isnan(top(ones, jnp.array([1.0, 0.0]))).all())
    assert bool(jnp.isnan(top(jnp.array([1.0, jnp.inf]), ones)).all())


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="k: 5"):
        top_eigenvalues(jnp.sum, jnp.ones(9), k=5, iterations=4)
    with pytest.raises(ValueError, match="k: 3 eigenvectors of 2"):
        top_eigenpairs(lambda w: jnp.sum(w**2), jnp.ones(2), k=3)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("ema", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.6])
def test_a_ratio_of_one_is_where_descent_turns_unstable(momentum, ema, nesterov):
    """The spectral radius of the step on a quadratic crosses 1 at ratio 1."""
    learning_rate = 0.1
    unit = float(
        stability_ratio(1.0, 0.1, momentum=momentum, ema=ema, nesterov=nesterov)
    )

    def radius(curvature):
        # w ← w − lr d and m ← b m + s g, with d = m or b m + s g; g = curvature · w.
        share = (1 - momentum) if ema else 1.0
        accumulate = np.array([momentum, share * curvature])  # from (m, w)
        step = accumulate * (momentum if nesterov else 1.0)
        step = step + np.array([0.0, share * curvature if nesterov else 0.0])
        matrix = np.array([accumulate, np.array([0.0, 1.0]) - learning_rate * step])
        return np.abs(np.linalg.eigvals(matrix)).max()

    assert radius(0.99 / unit) < 1 < radius(1.01 / unit)


def test_full_batch_descent_settles_at_two_over_the_learning_rate():
    """The edge of stability: the loss falls on while sharpness hovers at 2 / lr."""
    rng = np.random.default_rng(0)
    inputs = jnp.asarray(rng.normal(size=(16, 4)), jnp.float32)
    targets = jnp.asarray(rng.normal(size=(16, 1)), jnp.float32)
    params = {
        "first": jnp.asarray(rng.normal(size=(4, 16)) / 2, jnp.float32),
        "second": jnp.asarray(rng.normal(size=(16, 1)) / 4, jnp.float32),
    }

    def loss(params):
        outputs = jnp.tanh(inputs @ params["first"]) @ params["second"]
        return jnp.mean((outputs - targets) ** 2)

    learning_rate = 0.2

    def step(params, _):
        gradient = jax.grad(loss)(params)
        return jax.tree.map(lambda w, g: w - learning_rate * g, params, gradient), None

    def block(params, _):
        params, _ = jax.lax.scan(step, params, None, length=101)
        sharpness = top_eigenvalues(loss, params, iterations=12).values[0]
        return params, (stability_ratio(sharpness, learning_rate), loss(params))

    _, (ratios, losses) = jax.jit(lambda p: jax.lax.scan(block, p, None, length=40))(
        params
    )
    # 101 steps apart, so that both phases of the oscillation of period two are seen.
    np.testing.assert_allclose(ratios[10:], 1.0, atol=0.03)
    assert losses[-1] < losses[10] / 10


def test_a_sketch_of_full_rank_gives_the_trace_of_a_network(x64):
    loss, params = network("float64")
    operator = hessian_operator(loss, params)
    found = jax.jit(lambda: hutch_plus_plus_trace(operator, params, samples=3 * 64))()
    np.testing.assert_allclose(found.estimate, np.trace(dense_hessian()), rtol=1e-9)


def test_heavy_ball_at_its_optimum_contracts_at_the_known_rate():
    """Both edges contract by (√κ − 1) / (√κ + 1) a step, and nothing does better."""
    learning_rate, momentum = map(float, heavy_ball_optimum(9.0, 1.0))
    for curvature in (1.0, 4.0, 9.0):
        step = np.array(
            [[1 + momentum - learning_rate * curvature, -momentum], [1.0, 0.0]]
        )
        radius = np.abs(np.linalg.eigvals(step)).max()
        np.testing.assert_allclose(radius, 0.5, atol=1e-3)
    assert bool(jnp.isnan(heavy_ball_optimum(9.0, -1.0)[0]))
