"""Scores of examples against formulas and loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.dynamics.pruning import el2n_scores, grand_scores, keep_mask


def test_el2n_is_the_length_of_the_error_of_the_probabilities(x64):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 6, 4)) * 3
    labels = rng.integers(0, 4, size=6)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.sqrt(((probabilities - np.eye(4)[labels]) ** 2).sum(-1))
    found = jax.jit(el2n_scores)(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    narrow = el2n_scores(jnp.asarray(logits, jnp.bfloat16), jnp.asarray(labels))
    assert narrow.dtype == jnp.float32


def test_el2n_without_a_label_or_a_number_is_nan():
    logits = jnp.array([[1.0, 2.0], [1.0, 2.0], [jnp.inf, 0.0], [0.0, 0.0]])
    scores = el2n_scores(logits, jnp.array([2, -1, 0, 0]))
    assert jnp.isnan(scores).tolist() == [True, True, True, False]


def test_grand_is_the_norm_of_each_gradient():
    rng = np.random.default_rng(0)
    params = {
        "w": jnp.asarray(rng.normal(size=(3, 4)), jnp.bfloat16),
        "b": jnp.zeros(4),
    }
    examples = {
        "x": jnp.asarray(rng.normal(size=(7, 3)), jnp.float32),
        "y": jnp.asarray(rng.integers(0, 4, size=7)),
    }

    def loss(params, example):
        logits = example["x"] @ params["w"] + params["b"]
        return -jax.nn.log_softmax(logits)[example["y"]]

    wide = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    gradient = jax.jit(jax.grad(loss))
    expected = []
    for i in range(7):
        leaves = jax.tree.leaves(
            gradient(wide, jax.tree.map(lambda x, i=i: x[i], examples))
        )
        expected.append(np.sqrt(sum(np.sum(np.square(leaf)) for leaf in leaves)))
    np.testing.assert_allclose(
        grand_scores(loss, params, examples), expected, rtol=1e-5
    )
    # Three does not divide seven.
    scores = jax.jit(lambda p, e: grand_scores(loss, p, e, microbatch=3))
    np.testing.assert_allclose(scores(params, examples), expected, rtol=1e-5)
    with pytest.raises(ValueError, match="microbatch: 0"):
        grand_scores(loss, params, examples, microbatch=0)


def test_the_mask_keeps_the_highest_and_counts_exactly():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 5, size=30).astype("float32")  # many ties
    keep = jax.jit(keep_mask)
    for fraction in (0.0, 0.3, 0.5, 1.0):
        mask = np.asarray(keep(scores, fraction))
        assert mask.sum() == round(fraction * 30)
        if 0 < mask.sum() < 30:
            assert scores[mask].min() >= scores[~mask].max()
    offset = np.asarray(keep(scores, 0.5, offset=0.2))
    top = np.asarray(keep(scores, 0.2))
    assert offset.sum() == 15
    assert not np.any(offset & top)
    assert np.array_equal(offset | top, np.asarray(keep(scores, 0.7)))


def test_a_score_that_is_nan_is_never_kept():
    mask = keep_mask(jnp.array([jnp.nan, 1.0, jnp.nan, 2.0]), 1.0)
    assert mask.tolist() == [False, True, False, True]
