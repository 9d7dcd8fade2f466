"""Clipping by group: optax's where there is one group, or one a leaf."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import clip_by_group_norm
from gnomon_contract import Verified


def one_group(params):
    return jax.tree.map(lambda _: "all", params)


GIVEN = {"clip_by_group_norm": {"max_norm": 0.5, "labels": one_group}}
LAYERS = {
    "clip_by_group_norm": lambda **s: optax.chain(
        clip_by_group_norm(0.5, [("/[0-9]+/query", "q"), ("kernel|bias", "k")], **s),
        optax.scale(-0.1),
    )
}
VERIFIED = {"clip_by_group_norm": Verified("A32", "optax 0.2.8", 1e-7)}
W = {
    "a": {"kernel": jnp.array([[3.0, 4.0]]), "bias": jnp.array([0.2])},
    "b": {"kernel": jnp.array([[0.3, 0.4]]), "bias": jnp.zeros(2)},
}


def clipped(labels, max_norm=1.0, tree=W):
    clip = clip_by_group_norm(max_norm, labels)
    return clip.update(tree, clip.init(tree))[0]


def assert_same(found, wanted):
    within = VERIFIED["clip_by_group_norm"].within
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=within),
        found,
        wanted,
    )


def test_one_group_is_optax_on_the_whole_tree():
    wanted, _ = optax.clip_by_global_norm(1.0).update(W, optax.EmptyState())
    assert_same(clipped(one_group), wanted)
    assert_same(clipped("all"), wanted)


def test_groups_are_optax_on_the_parts_of_a_partition():
    """By a prefix, and by ordered regexes."""
    parts = {"a": optax.clip_by_global_norm(1.0), "b": optax.clip_by_global_norm(1.0)}
    theirs = optax.partition(parts, {"a": "a", "b": "b"})
    wanted, _ = theirs.update(W, theirs.init(W))
    assert_same(clipped({"a": "a", "b": "b"}), wanted)
    assert_same(clipped([("^a/", "a"), ("", "b")]), wanted)


def test_a_group_a_leaf_clips_each_leaf_and_keeps_zeros_and_the_unnamed():
    found = clipped([("a/kernel", "1"), ("b/bias", "2")], 0.1)
    np.testing.assert_allclose(found["a"]["kernel"], [[0.06, 0.08]], rtol=1e-6)
    np.testing.assert_array_equal(found["b"]["bias"], 0.0)
    for part, name in (("a", "bias"), ("b", "kernel")):
        np.testing.assert_array_equal(found[part][name], W[part][name])


def test_a_regex_that_matches_nothing_is_refused():
    with pytest.raises(ValueError, match="'querry' of labels"):
        clip_by_group_norm(1.0, [("querry", "q")]).init(W)
