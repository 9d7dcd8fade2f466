"""Power iteration and polar factors against float64 decompositions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.parameters.matrices import as_matrices
from gnomon.parameters.spectral import STEEP, largest_singular_value, polar
from gnomon.parameters.units import Axes


def draw(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def factor(matrix):
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (3, 6, 6)])
def test_the_largest_singular_value_of_each_matrix(shape, x64):
    matrices = draw(shape)
    vectors = draw((*shape[:-2], shape[-1]), seed=1)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    values, turned = largest_singular_value(
        jnp.asarray(matrices), jnp.asarray(vectors), iterations=300
    )
    wanted = np.linalg.svd(matrices, compute_uv=False)[..., 0]
    np.testing.assert_allclose(values, wanted, rtol=1e-12)
    products = np.einsum("...io,...o->...i", matrices, turned)
    np.testing.assert_allclose(np.linalg.norm(products, axis=-1), wanted, rtol=1e-12)


def test_a_stacked_leaf_is_its_layers_one_by_one():
    """The query kernels of two layers, as a model stacks them."""
    leaf = jnp.asarray(draw((2, 8, 4, 3)), jnp.float32)
    vectors = jnp.asarray(draw((2, 12)), jnp.float32)
    stacked = as_matrices(leaf, Axes(reduce=(1,), stack=(0,)))
    values, turned = largest_singular_value(stacked, vectors)
    factors = polar(stacked)
    for i, layer in enumerate(leaf):
        (matrix,) = as_matrices(layer, Axes(reduce=(0,)))
        value, vector = largest_singular_value(matrix, vectors[i])
        np.testing.assert_allclose(values[i], value, rtol=1e-6)
        np.testing.assert_allclose(turned[i], vector, atol=1e-6)
        np.testing.assert_allclose(factors[i], polar(matrix), atol=1e-6)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (3, 5, 5)])
def test_the_polar_factor_is_that_of_the_decomposition(shape, x64):
    matrices = draw(shape)
    found = polar(jnp.asarray(matrices), iterations=20)
    np.testing.assert_allclose(found, factor(matrices), atol=1e-12)
    # The scale of a matrix is no part of its factor, however small or large.
    tiny, huge = (polar(jnp.asarray(s * matrices), 20) for s in (1e-200, 1e200))
    np.testing.assert_allclose(tiny, found, atol=1e-12)
    np.testing.assert_allclose(huge, found, atol=1e-12)


def test_float32_factors_are_orthogonal_to_rounding_and_bfloat16_stays():
    matrix = draw((16, 64))
    found = polar(jnp.asarray(matrix, jnp.float32))
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found @ found.T, np.eye(16), atol=1e-5)
    narrow = polar(jnp.asarray(matrix, jnp.bfloat16))
    assert narrow.dtype == jnp.bfloat16
    np.testing.assert_allclose(narrow.astype(jnp.float32), factor(matrix), atol=1e-2)


def test_five_steep_steps_put_singular_values_near_one():
    matrix = jnp.asarray(draw((32, 32)), jnp.float32)
    values = np.linalg.svd(polar(matrix, 5, STEEP), compute_uv=False)
    share = np.linalg.svd(matrix, compute_uv=False) / np.linalg.norm(matrix)
    assert ((values > 0.65) & (values < 1.2))[share > 0.01].all()
    slow = np.linalg.svd(polar(matrix, 5), compute_uv=False)
    assert slow.min() < values[share > 0.01].min()


def test_nothing_has_no_direction_and_what_is_broken_shows():
    zero = jnp.zeros((2, 3, 4))
    np.testing.assert_array_equal(polar(zero), zero)
    assert polar(jnp.zeros((2, 0, 4))).shape == (2, 0, 4)
    gradient = jax.grad(lambda x: jnp.sum(polar(x)))(zero)
    assert np.isfinite(gradient).all()
    one = jnp.asarray(draw((2, 3, 4)), jnp.float32).at[0, 0, 0].set(jnp.nan)
    found = polar(one)
    assert jnp.isnan(found[0]).all()
    assert not jnp.isnan(found[1]).any()
