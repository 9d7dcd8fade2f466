"""Weight matching against planted permutations and exhaustive search."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.dynamics.landscape import linear_barrier
from gnomon.dynamics.matching import (
    mlp_spec,
    permute,
    singular_alignment,
    weight_matching,
)
from gnomon.models import MLP, functional

NET = functional(MLP, inputs=6, widths=(9, 8), classes=3)
INPUTS = np.random.default_rng(1).normal(size=(64, 6)).astype("float32")


def outputs(params):
    return NET.apply(params, {}, INPUTS, train=False)[0]


@pytest.fixture(scope="module")
def pairs():
    """Two pairs, stacked: a net and its permuted copy, and a net and a stranger."""
    nets = jax.jit(jax.vmap(NET.init))(jax.random.split(jax.random.key(0), 2))[0]
    net, stranger = (jax.tree.map(lambda x, i=i: x[i], nets) for i in range(2))
    rng = np.random.default_rng(0)
    order = {
        f"hidden/{i}": jnp.asarray(rng.permutation(n)) for i, n in enumerate((9, 8))
    }
    spec = mlp_spec(net)
    copy = permute(net, order, spec)
    first = jax.tree.map(lambda x: jnp.stack([x, x]), net)
    second = jax.tree.map(lambda x, y: jnp.stack([x, y]), copy, stranger)
    found = jax.jit(jax.vmap(lambda a, b: weight_matching(a, b, spec)))(first, second)
    return net, order, copy, found


def test_a_permuted_net_computes_the_same(pairs):
    net, _, copy, _ = pairs
    np.testing.assert_allclose(outputs(copy), outputs(net), atol=1e-5)


def test_a_planted_permutation_is_found_exactly(pairs):
    net, order, _, found = pairs
    for name, indices in order.items():
        # Permuting by `order` and then by what was found is the identity.
        units = jnp.arange(indices.size)
        assert jnp.array_equal(indices[found.permutations[name][0]], units)
    matched = jax.tree.map(lambda x: x[0], found.params)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, matched, net))
    assert found.distance[0] == 0.0
    assert found.distance_before[0] > 1.0


def test_matching_takes_the_barrier_away(pairs):
    net, _, copy, found = pairs
    labels = jnp.argmax(outputs(net), axis=-1)

    def loss(params):
        scores = jax.nn.log_softmax(outputs(params))
        return -jnp.mean(jnp.take_along_axis(scores, labels[:, None], axis=1))

    barrier = jax.jit(lambda b: linear_barrier(loss, net, b, points=11).height)
    assert barrier(copy) > 0.1
    assert barrier(jax.tree.map(lambda x: x[0], found.params)) < 1e-6


def test_a_stranger_comes_closer_by_a_permutation(pairs):
    *_, found = pairs
    assert found.distance[1] < found.distance_before[1]
    assert found.rounds[1] < 50
    for indices in found.permutations.values():
        assert np.array_equal(np.sort(indices[1]), np.arange(indices.shape[1]))


def test_one_permutation_is_solved_to_optimality():
    """Against all 720 orders of a hidden layer of six units."""
    rng = np.random.default_rng(0)
    a, b = (
        {
            "in": rng.normal(size=(4, 6)),
            "bias": rng.normal(size=6),
            "out": rng.normal(size=(6, 3)),
        }
        for _ in range(2)
    )
    spec = {"^in$": {1: "h"}, "^bias$": {0: "h"}, "^out$": {0: "h"}}

    def distance(order):
        return np.sqrt(
            np.sum((a["in"] - b["in"][:, order]) ** 2)
            + np.sum((a["bias"] - b["bias"][order]) ** 2)
            + np.sum((a["out"] - b["out"][order]) ** 2)
        )

    best = min(itertools.permutations(range(6)), key=lambda p: distance(list(p)))
    narrow = [jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), t) for t in (a, b)]
    found = weight_matching(*narrow, spec)
    assert found.permutations["h"].tolist() == list(best)
    np.testing.assert_allclose(found.distance, distance(list(best)), rtol=1e-5)
    np.testing.assert_allclose(found.distance_before, distance(range(6)), rtol=1e-5)


def test_weights_that_are_not_finite_stay_where_they_are():
    spec = {"in": {1: "h"}}
    a = {"in": jnp.array([[1.0, 2.0]])}
    b = {"in": jnp.array([[jnp.nan, 1.0]])}
    found = weight_matching(a, b, spec)
    assert found.permutations["h"].tolist() == [0, 1]
    assert bool(jnp.isnan(found.distance))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32", "float64"])
def test_every_dtype_where_double_precision_is_on(x64, dtype):
    spec = {"in": {1: "h"}}
    a = {"in": jnp.array([[1.0, 2.0, 3.0]], dtype)}
    b = {"in": jnp.array([[2.0, 3.0, 1.0]], dtype)}
    found = jax.jit(lambda start: weight_matching(a, b, spec, initial={"h": start}))(
        jnp.array([1, 0, 2])
    )
    assert found.permutations["h"].tolist() == [2, 0, 1]
    assert found.params["in"].dtype == jnp.dtype(dtype)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"absent": {0: "h"}}, "no parameter path matches"),
        ({"in": {2: "h"}}, "has no axis=2"),
        ({"in": {0: "h", 1: "h"}}, "one name on two axes of in"),
        ({"in": {0: "h"}, "out": {0: "h"}}, "'h' has length 1, and 2 on axis 0 of out"),
    ],
)
def test_a_specification_that_does_not_fit_is_refused(spec, message):
    params = {"in": jnp.ones((1, 2)), "out": jnp.ones((2, 1))}
    with pytest.raises(ValueError, match=message):
        weight_matching(params, params, spec)


def test_alignment_is_one_for_equal_spaces_and_small_for_strangers():
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=(60, 40)), jnp.float32) for _ in range(2))
    np.testing.assert_allclose(singular_alignment(a, 2.5 * a, 5), 1.0, rtol=1e-5)
    np.testing.assert_allclose(singular_alignment(a, -a, 5), -1.0, rtol=1e-5)
    assert abs(float(singular_alignment(a, b, 5))) < 0.1
    with pytest.raises(ValueError, match="k: 41"):
        singular_alignment(a, b, 41)
    with pytest.raises(ValueError, match="two matrices of one shape"):
        singular_alignment(a, b.T, 2)
