"""Adaptive clipping: optax's where units agree, its bound, and what is left out."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import adaptive_clip, observed
from gnomon_contract import Verified

VERIFIED = {"adaptive_clip": Verified("A17", "optax 0.2.8", 1e-7)}


def tree(seed):
    generator = np.random.default_rng(seed)

    def draw(*shape):
        return jnp.asarray(generator.normal(size=shape), jnp.float32)

    return {
        "conv": {"kernel": draw(2, 2, 3, 4)},
        "layer": {"kernel": draw(4, 3)},
        "query": {"kernel": draw(4, 2, 3)},
    }


def test_equals_optax_where_units_agree():
    w, g = tree(0), tree(1)
    g["layer"]["kernel"] = g["layer"]["kernel"] * jnp.array([[1e-3, 1.0, 0.0]])
    clip = adaptive_clip(0.1)
    with observed() as seen:
        found, _ = clip.update(g, clip.init(w), w)
    theirs = optax.adaptive_grad_clip(0.1)
    wanted, _ = theirs.update(g, theirs.init(w), w)
    within = VERIFIED["adaptive_clip"].within
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=within),
        found,
        wanted,
    )
    assert seen["clipped"] == pytest.approx(11 / 13)  # of 4 + 3 + 6 units


def test_no_unit_is_longer_than_its_share():
    """Those of an attention's output and of an embedding among them, and vectors."""
    w = {
        "attention": {"out": {"kernel": jnp.ones((2, 3, 4)), "bias": jnp.full(4, 2.0)}},
        "embed": {"embedding": jnp.full((5, 4), 1e-9)},
    }
    g = jax.tree.map(lambda x: 10.0 * jnp.ones_like(x), w)
    clip = adaptive_clip(0.1, eps=0.5)
    found, _ = clip.update(g, clip.init(w), w)
    norms = jnp.linalg.norm(found["attention"]["out"]["kernel"].reshape(6, 4), axis=0)
    np.testing.assert_allclose(norms, 0.1 * 6**0.5, rtol=1e-6)
    np.testing.assert_allclose(
        jnp.linalg.norm(found["attention"]["out"]["bias"]), 0.4, rtol=1e-6
    )
    rows = jnp.linalg.norm(found["embed"]["embedding"], axis=1)
    np.testing.assert_allclose(rows, 0.1 * 0.5, rtol=1e-6)
    free = adaptive_clip(jnp.inf)
    found, _ = free.update(g, free.init(w), w)
    jax.tree.map(np.testing.assert_array_equal, found, g)


def test_the_output_layer_is_left_out():
    w = {"head": {"kernel": jnp.ones((2, 2))}, "mlp": {"kernel": jnp.ones((2, 2))}}
    clip = adaptive_clip(0.1)
    found, _ = clip.update(w, clip.init(w), w)
    np.testing.assert_array_equal(found["head"]["kernel"], 1.0)
    np.testing.assert_allclose(found["mlp"]["kernel"], 0.1, rtol=1e-6)
