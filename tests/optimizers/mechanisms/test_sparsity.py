"""Masks by magnitude: exact counts, ties, and other ways to the same mask."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.optimizers.mechanisms.sparsity import largest, n_of_m

SHAPES = {"a": (7, 5), "b": (11,), "c": ()}
find = jax.jit(largest)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 99),
    dropped=st.integers(0, 47),
    more=st.sampled_from([0.0, 0.9]),
    scale=st.floats(1e-30, 1e30),
)
def test_the_share_is_exact(seed, dropped, more, scale):
    generator = np.random.default_rng(seed)
    tree = {
        name: jnp.asarray(scale * generator.normal(size=shape), jnp.float32)
        for name, shape in SHAPES.items()
    }
    masks = find(tree, jnp.float32(min(dropped + more, 47) / 47))
    inside = np.concatenate([np.ravel(m) for m in masks.values()])
    sizes = np.concatenate([np.ravel(jnp.abs(x)) for x in tree.values()])
    assert (inside.sum(), inside.size) == (47 - dropped, 47)
    if 0 < dropped < 47:
        assert sizes[inside].min() > sizes[~inside].max()


def test_equals_are_kept_together():
    masks = find({"a": jnp.array([2.0, -2.0, 2.0, 1.0])}, 0.75)
    np.testing.assert_array_equal(masks["a"], [True, True, True, False])
    assert find({"a": jnp.zeros(4)}, 0.5)["a"].all()


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 99), axis=st.integers(0, 2), n=st.integers(0, 4))
def test_n_of_every_m_ties_too(seed, axis, n):
    generator = np.random.default_rng(seed)
    shape = [3, 2, 5]
    shape[axis] = 8
    x = generator.integers(-2, 3, size=shape).astype(np.float32)
    mask = np.asarray(n_of_m(jnp.asarray(x), n, 4, axis))
    groups = np.moveaxis(mask, axis, -1).reshape(-1, 4)
    assert (groups.sum(1) == n).all()
    sizes = abs(np.moveaxis(x, axis, -1).reshape(-1, 4))
    for kept, size in zip(groups, sizes, strict=True):
        order = np.argsort(-size, kind="stable")
        np.testing.assert_array_equal(np.flatnonzero(kept), np.sort(order[:n]))
