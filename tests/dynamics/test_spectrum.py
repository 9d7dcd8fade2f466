"""Spectral density by quadrature against `eigh`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.dynamics.spectrum import (
    Spectrum,
    density,
    hessian_spectrum,
    lanczos_quadrature,
    wasserstein_distance,
)


def spiked(size=200):
    """A Hessian-like matrix: a bulk near zero and a few outliers."""
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(size, size)))
    bulk = rng.normal(size=size) ** 2 / 10
    bulk[:4] = [10.0, 7.0, 5.0, -1.0]
    return (basis * bulk) @ basis.T


def test_quadrature_against_eigh(x64):
    """Wasserstein-1 distance below 0.5 % of the spectrum's range, edges to 1e-6."""
    matrix = spiked()
    expected = np.linalg.eigvalsh(matrix)
    dense = jnp.asarray(matrix)
    found = jax.jit(
        lambda key: lanczos_quadrature(
            lambda v: dense @ v, dense[0], iterations=40, samples=8, key=key
        )
    )(jax.random.key(0))
    uniform = jnp.full(200, 1 / 200)
    distance = wasserstein_distance(*found, jnp.asarray(expected), uniform)
    assert float(distance) < 0.005 * (expected[-1] - expected[0])
    np.testing.assert_allclose(found.nodes.max(), expected[-1], rtol=1e-6)
    np.testing.assert_allclose(found.nodes.min(), expected[0], rtol=1e-6)
    np.testing.assert_allclose(found.weights.sum(), 1.0, rtol=1e-12)


def test_moments_are_those_of_the_start_vectors(x64):
    """m steps integrate polynomials below degree 2 m exactly: here up to degree 5."""
    matrix = spiked(30)
    dense = jnp.asarray(matrix)
    found = lanczos_quadrature(lambda v: dense @ v, dense[0], iterations=3, samples=1)
    more = lanczos_quadrature(lambda v: dense @ v, dense[0], iterations=9, samples=1)
    for degree in range(6):
        np.testing.assert_allclose(
            (found.weights * found.nodes**degree).sum(),
            (more.weights * more.nodes**degree).sum(),
            rtol=1e-10,
        )


def test_a_quadratic_in_two_leaves():
    """Two distinct curvatures: two nodes hold their shares, whatever the sample."""

    def loss(params):
        return jnp.sum(params["a"] ** 2) + 2.5 * jnp.sum(params["b"] ** 2)

    params = {"a": jnp.ones((2, 3), jnp.bfloat16), "b": jnp.ones(2, jnp.bfloat16)}
    found = hessian_spectrum(loss, params, iterations=2, samples=3)
    np.testing.assert_allclose(found.nodes, [[5.0, 2.0]] * 3, rtol=1e-5)
    np.testing.assert_allclose(3 * found.weights, [[0.25, 0.75]] * 3, rtol=1e-5)


def test_density_integrates_to_one_and_keeps_the_mean():
    found = Spectrum(
        jnp.array([[0.5, 3.0], [1.0, 2.0]]), jnp.array([[0.2, 0.3], [0.1, 0.4]])
    )
    grid = jnp.linspace(-2.0, 6.0, 801)
    curve = density(found, grid, 0.1)
    np.testing.assert_allclose(jnp.sum(curve) * 0.01, 1.0, rtol=1e-4)
    np.testing.assert_allclose(jnp.sum(curve * grid) * 0.01, 1.9, rtol=1e-4)


def test_wasserstein_distance_of_a_shift_is_the_shift():
    nodes = jnp.array([3.0, -1.0, 0.5])
    weights = jnp.array([0.2, 0.5, 0.3])
    shifted = wasserstein_distance(nodes, weights, nodes + 2.0, weights)
    np.testing.assert_allclose(shifted, 2.0, rtol=1e-6)
    assert wasserstein_distance(nodes, weights, nodes[::-1], weights[::-1]) == 0.0


def test_no_samples_is_refused():
    with pytest.raises(ValueError, match="samples: 0"):
        lanczos_quadrature(lambda v: v, jnp.ones(2), samples=0)
