"""Power iteration and gradient ranks against dense decompositions."""

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.dynamics import (
    gradient_ranks,
    largest_singular_value,
    layers_of,
    rank,
    spectral_norms,
    start_vectors,
)

SHAPES = {
    "attention": {"query": {"kernel": (8, 2, 3)}, "out": {"kernel": (2, 3, 8)}},
    "embed": {"embedding": (20, 8)},
    "norm": {"scale": (8,)},
}


def tree(seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: jnp.asarray(rng.normal(size=shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


def test_layers_are_block_diagonal_matrices():
    params = tree()
    layers = layers_of(params, "^[a-z]+")
    query = np.asarray(params["attention"]["query"]["kernel"]).reshape(8, 6)
    out = np.asarray(params["attention"]["out"]["kernel"]).reshape(6, 8)
    blocks = np.block([[query, np.zeros((8, 8))], [np.zeros((6, 6)), out]])
    values = np.linalg.svd(blocks, compute_uv=False)
    embed = np.linalg.svd(np.asarray(params["embed"]["embedding"]), compute_uv=False)

    look = jax.jit(lambda p, v: spectral_norms(p, v, layers, iterations=60))
    norms, _ = look(params, start_vectors(params, layers))
    largest = [values[0], embed[0], np.nan, max(values[0], embed[0])]
    assert layers.names == ("attention", "embed", "norm")
    np.testing.assert_allclose(norms, largest, rtol=1e-4)

    share = values / values.sum()
    entropy = -np.sum(share * np.log(np.maximum(share, 1e-30)))
    found = jax.jit(lambda g: gradient_ranks(g, layers))(params)
    np.testing.assert_allclose(found.nuclear_norm[0], values.sum(), rtol=1e-5)
    np.testing.assert_allclose(found.effective_rank[0], np.exp(entropy), rtol=1e-5)
    assert jnp.isnan(found.nuclear_norm[2])
    # 8 is the smaller side of the embedding, 6 of the others.
    limited = gradient_ranks(params, layers, largest=6)
    np.testing.assert_array_equal(jnp.isnan(limited.effective_rank), [0, 1, 1])


def test_two_warm_iterations_follow_a_slowly_moving_matrix():
    """Where two cold ones do not."""
    rng = np.random.default_rng(0)
    start, end = (jnp.asarray(rng.normal(size=(40, 30)), jnp.float32) for _ in "ab")
    matrices = [start + 0.005 * t * (end - start) for t in range(60)]
    cold = jnp.ones(30) / jnp.sqrt(30.0)
    look = jax.jit(lambda m, v: largest_singular_value(m, v, iterations=2))
    vector = cold
    for matrix in matrices:
        warm_value, vector = look(matrix, vector)
    truth = np.linalg.norm(matrices[-1], 2)
    np.testing.assert_allclose(warm_value, truth, rtol=2e-3)
    assert look(matrices[-1], cold)[0] < 0.98 * truth
    assert warm_value <= truth * (1 + 1e-6)


def test_zero_and_broken_matrices_do_not_spoil_what_comes_next():
    vector = jnp.array([0.6, 0.8])
    value, kept = largest_singular_value(jnp.zeros((3, 2)), vector)
    assert value == 0
    np.testing.assert_array_equal(kept, vector)
    value, kept = largest_singular_value(jnp.full((3, 2), jnp.nan), vector)
    assert jnp.isnan(value)
    np.testing.assert_array_equal(kept, vector)
    assert jnp.isnan(rank(jnp.zeros(3)).effective_rank)
    layers = layers_of({"a": {"kernel": jnp.ones((2, 2))}})
    broken = gradient_ranks({"a": {"kernel": jnp.full((2, 2), jnp.nan)}}, layers)
    assert jnp.isnan(broken.nuclear_norm).all()
