"""Lanczos against dense eigenvalues, and where its recurrence breaks down."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.dynamics.lanczos import lanczos, ritz, ritz_vectors


def symmetric(seed, size):
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    return matrix + matrix.T


def test_a_full_run_finds_every_eigenvalue(x64):
    matrix = symmetric(0, 12)
    start = jnp.asarray(np.random.default_rng(1).normal(size=12))
    t = lanczos(lambda v: jnp.asarray(matrix) @ v, start, 12)
    pairs = ritz(t)
    expected, _ = np.linalg.eigh(matrix)
    np.testing.assert_allclose(pairs.values[::-1], expected, atol=1e-12)
    np.testing.assert_allclose(t.basis @ t.basis.T, np.eye(12), atol=1e-13)
    np.testing.assert_allclose(t.basis @ matrix @ t.basis.T, t.matrix(), atol=1e-12)
    top = np.asarray(ritz_vectors(t, pairs, 2))
    residual = top @ matrix - np.asarray(pairs.values[:2])[:, None] * top
    np.testing.assert_allclose(residual, 0, atol=1e-11)


def test_the_basis_stays_orthogonal_in_single_precision():
    """Without reorthogonalization a converged value would appear more than once."""
    values = np.concatenate([[100.0, 50.0], np.linspace(0, 1, 98)]).astype("float32")
    start = jax.random.normal(jax.random.key(0), (100,))
    t = lanczos(lambda v: values * v, start, 60)
    np.testing.assert_allclose(t.basis @ t.basis.T, np.eye(60), atol=1e-5)
    assert int((ritz(t).values > 2).sum()) == 2


def test_errors_bound_the_distance_to_an_eigenvalue(x64):
    matrix = symmetric(2, 30)
    t = lanczos(lambda v: jnp.asarray(matrix) @ v, jnp.ones(30), 8)
    pairs = ritz(t)
    gaps = np.abs(np.asarray(pairs.values)[:, None] - np.linalg.eigvalsh(matrix))
    assert np.all(gaps.min(axis=1) <= np.asarray(pairs.errors) + 1e-12)


def test_an_invariant_space_invents_no_eigenvalue(x64):
    """All spectra here are negative: a value of 0 would come from a dead recurrence."""
    values = jnp.array([-3.0, -3.0, -3.0, -7.0])

    def found(scale, weight):
        """The residual of a closed space is rounding, of any length."""
        start = jnp.array([1.0, 0.0, 0.0, weight])
        return ritz(lanczos(lambda v: scale * values * v, start, 4)).values / scale

    scales, weights = jnp.meshgrid(jnp.geomspace(0.1, 10, 16), jnp.linspace(0.2, 3, 16))
    spectra = jax.jit(jax.vmap(found))(scales.ravel(), weights.ravel())
    expected = np.broadcast_to([-7.0, -3.0, -3.0, -3.0], spectra.shape)
    np.testing.assert_allclose(np.sort(spectra, axis=1), expected, atol=1e-12)


def test_the_zero_operator_has_zero_eigenvalues():
    t = lanczos(jnp.zeros_like, jnp.ones(5), 3)
    assert ritz(t).values.tolist() == [0.0, 0.0, 0.0]
    np.testing.assert_allclose(t.basis @ t.basis.T, np.eye(3), atol=1e-6)


def test_a_tree_is_one_vector(x64):
    matrix = symmetric(3, 9)

    def matvec(tree):
        flat = jnp.concatenate([tree["a"].reshape(-1), tree["b"].reshape(-1)])
        flat = jnp.asarray(matrix) @ flat
        return {"a": flat[:8].reshape(2, 4), "b": flat[8].reshape(())}

    tree = {"a": jnp.ones((2, 4)), "b": jnp.ones(())}
    t = lanczos(matvec, tree, 5)
    basis = jnp.concatenate([t.basis["a"].reshape(5, 8), t.basis["b"][:, None]], axis=1)
    np.testing.assert_allclose(basis[0], 1 / 3, rtol=1e-12)
    np.testing.assert_allclose(basis @ matrix @ basis.T, t.matrix(), atol=1e-12)
    assert t.basis["a"].shape == (5, 2, 4)


@pytest.mark.parametrize("start", [jnp.zeros(3), jnp.array([1.0, jnp.nan, 1.0])])
def test_a_direction_without_direction_gives_nan(start):
    t = jax.jit(lambda s: lanczos(lambda v: 2.0 * v, s, 3))(start)
    assert bool(jnp.isnan(ritz(t).values).all())


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="iterations: 0"):
        lanczos(lambda v: v, jnp.ones(2), 0)
    with pytest.raises(ValueError, match="start: the tree has no entries"):
        lanczos(lambda v: v, {}, 2)
