"""Gram iteration: bounds from above that close in, and the vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.dynamics import lipschitz_bound
from gnomon.parameters.gram import conv_gram_bound, gram_bound, leading_pair


def draw(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def largest(matrix):
    return np.linalg.svd(matrix, compute_uv=False).max(-1)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (3, 5, 5)])
def test_a_bound_from_above_that_tends_to_the_value(shape, x64):
    matrix = draw(*shape)
    value, before = largest(matrix), np.inf
    for steps in (0, 2, 4, 16):
        bound = gram_bound(matrix, steps)
        assert (bound >= value * (1 - 1e-13)).all()
        assert (bound <= before).all()
        assert (bound / value <= min(shape[-2:]) ** (0.5 / 2**steps)).all()
        before = bound
    np.testing.assert_allclose(bound, value, rtol=1e-5)
    for scale in (1e-200, 1e200):
        np.testing.assert_allclose(gram_bound(scale * matrix, 16), scale * bound)
    value, left, right = leading_pair(matrix, 14)
    np.testing.assert_allclose(value, largest(matrix), rtol=1e-12)
    product = np.einsum("...i,...ij,...j->...", left, matrix, right)
    np.testing.assert_allclose(product, value, rtol=1e-12)


def test_its_gradient_is_that_of_the_value_and_zero_is_safe(x64):
    matrix = jnp.asarray(draw(5, 4))
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    found = jax.grad(lambda w: gram_bound(w, 16))(matrix)
    np.testing.assert_allclose(found, np.outer(left[:, 0], right[0]), atol=1e-6)
    few = jax.grad(lambda w: gram_bound(w, 2))
    step = 1e-6 * jnp.asarray(draw(5, 4, seed=1))
    change = gram_bound(matrix + step, 2) - gram_bound(matrix - step, 2)
    np.testing.assert_allclose(change, 2 * jnp.sum(few(matrix) * step), rtol=1e-6)
    zeros = jnp.zeros((3, 2))
    assert gram_bound(zeros) == 0
    assert not few(zeros).any()
    assert not any(x.any() for x in leading_pair(zeros))


def circulant(kernel, size):
    """The matrix of a convolution with circular padding."""
    height, width, inputs, outputs = kernel.shape
    matrix = np.zeros((size, size, outputs, size, size, inputs))
    for y, x, i, j in np.ndindex(size, size, height, width):
        matrix[y, x, :, (y + i) % size, (x + j) % size] += kernel[i, j].T
    return matrix.reshape(size * size * outputs, -1)


@pytest.mark.parametrize("channels", [(3, 4), (4, 3)])
def test_convolutions_against_their_whole_matrix(channels, x64):
    kernel = draw(3, 3, *channels)
    value = largest(circulant(kernel, 6))
    known = conv_gram_bound(kernel, 12, size=6)
    np.testing.assert_allclose(known, value, rtol=1e-3)
    assert known >= value * (1 - 1e-12)
    bounds = [conv_gram_bound(kernel, steps) for steps in (1, 3, 5)]
    assert bounds[0] > bounds[1] > bounds[2] >= value
    assert bounds[2] < 1.1 * value
    assert conv_gram_bound(0 * kernel) == conv_gram_bound(0 * kernel, size=6) == 0
    with pytest.raises(ValueError, match="four axes"):
        conv_gram_bound(kernel[0])
    with pytest.raises(ValueError, match="size=2 is below"):
        conv_gram_bound(kernel, size=2)


def test_a_network_of_layers_stretches_no_more_than_the_product(x64):
    stack = draw(3, 5, 5)
    params = {
        "first": {"kernel": draw(4, 5), "bias": draw(5)},
        "blocks": {"stacked": {"kernel": stack}},
    }
    bound = lipschitz_bound(params, 14)
    wanted = largest(params["first"]["kernel"]) * np.prod(largest(stack))
    np.testing.assert_allclose(bound, wanted, rtol=1e-3)
    told = {**params, "blocks": {"kernel": stack}}
    np.testing.assert_allclose(lipschitz_bound(told, 14, stacked="^blocks/"), bound)

    def network(x):
        x = np.tanh(x @ params["first"]["kernel"] + params["first"]["bias"])
        for kernel in stack:
            x = np.tanh(x @ kernel)
        return x

    x, y = draw(50, 4, seed=1), draw(50, 4, seed=2)
    stretch = np.linalg.norm(network(x) - network(y), axis=1) / np.linalg.norm(
        x - y, axis=1
    )
    assert stretch.max() < bound
    assert lipschitz_bound({"bias": draw(3)}) == 1
