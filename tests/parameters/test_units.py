"""Which axes form a unit, and the algebra of norms, projections and retractions."""

import hypothesis.extra.numpy as hnp
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.parameters.units import (
    Axes,
    cosine,
    project_tangent,
    resolve_axes,
    retract,
    unit_axes,
    unit_norm,
)


@pytest.mark.parametrize(
    ("path", "shape", "axes"),
    [
        ("dense/kernel", (64, 128), (0,)),
        ("params/conv/kernel", (3, 3, 16, 32), (0, 1, 2)),
        ("conv_transpose/kernel", (2, 2, 16, 32), (0, 1, 2)),
        ("embed/embedding", (256, 64), (1,)),
        ("pos_embedding", (1, 32, 64), (2,)),
        ("attention/query/kernel", (64, 4, 16), (0,)),
        ("attention/value/kernel", (64, 4, 16), (0,)),
        ("attention/value/kernel/value", (64, 4, 16), (0,)),
        ("attention/q_proj/kernel", (64, 64), (0,)),
        ("attention/out/kernel", (4, 16, 64), (0, 1)),
        ("attention/query/bias", (4, 16), ()),
        ("norm/scale", (64,), ()),
        ("", (8, 4), (0,)),
        ("w", (8,), ()),
        ("temperature", (), ()),
    ],
)
def test_unit_of_a_flax_parameter(path, shape, axes):
    assert unit_axes(path, shape) == axes


def test_units_of_a_linen_and_an_nnx_model_agree():
    """The two APIs spell paths differently and mean the same parameters."""
    from flax import linen, nnx

    attention = nnx.MultiHeadAttention(2, 8, decode=False, rngs=nnx.Rngs(0))
    state = nnx.state(attention, nnx.Param)
    pure = nnx.to_pure_dict(state)
    variables = jax.eval_shape(
        linen.MultiHeadDotProductAttention(2, qkv_features=8).init,
        jax.random.key(0),
        jnp.ones((1, 3, 8)),
    )
    expected = {
        name: {"kernel": Axes((0,)), "bias": Axes()}
        for name in ("query", "key", "value")
    } | {"out": {"kernel": Axes((0, 1)), "bias": Axes()}}
    assert resolve_axes(pure) == expected
    assert resolve_axes(variables["params"]) == expected
    is_axes = lambda x: isinstance(x, Axes)  # noqa: E731
    assert jax.tree.leaves(resolve_axes(state), is_leaf=is_axes) == jax.tree.leaves(
        expected, is_leaf=is_axes
    )


PARAMS = {
    "embed": {"embedding": jnp.zeros((8, 4))},
    "blocks": {
        "query": {"kernel": jnp.zeros((3, 4, 2, 2)), "bias": jnp.zeros((3, 2, 2))},
        "norm": {"scale": jnp.zeros((3, 4))},
    },
    "frozen": None,
    "masked": optax.MaskedNode(),
}


def test_stacked_layers_are_never_reduced_over():
    axes = resolve_axes(PARAMS, stacked="^blocks/")
    query = axes["blocks"]["query"]["kernel"]
    assert query == Axes(reduce=(1,), stack=(0,))
    assert query.layer(4) == Axes(reduce=(1, 2, 3), stack=(0,))
    assert axes["blocks"]["norm"]["scale"] == Axes(reduce=(), stack=(0,))
    assert axes["embed"]["embedding"] == Axes(reduce=(1,))


def test_leaves_that_are_absent_stay_absent():
    axes = resolve_axes(PARAMS)
    assert axes["frozen"] is None
    assert axes["masked"] == optax.MaskedNode()


def test_the_first_matching_rule_decides():
    rules = [("query/kernel", Axes((-1,), (0, 2))), ("kernel", 0), ("embedding", ())]
    axes = resolve_axes(PARAMS, rules, stacked="^blocks/")
    assert axes["blocks"]["query"]["kernel"] == Axes(reduce=(3,), stack=(0, 2))
    assert axes["embed"]["embedding"] == Axes()


def test_a_rule_keeps_the_stacked_axis():
    axes = resolve_axes(PARAMS, [("query/kernel", (1, 2))], stacked="^blocks/")
    assert axes["blocks"]["query"]["kernel"] == Axes(reduce=(1, 2), stack=(0,))


@pytest.mark.parametrize(
    ("rules", "stacked", "message"),
    [
        ([("kernle", 0)], None, r"no parameter path matches \['kernle'\]"),
        (None, "^layers/", r"no parameter path matches \['\^layers/'\]"),
        ([("embedding", 2)], None, "'embedding' on 'embed/embedding'.*rank 2"),
        ([("embedding", (0, -2))], None, "'embedding' on 'embed/embedding'.*twice"),
        ([("query/kernel", 0)], "^blocks/", "'query/kernel' on .*twice"),
    ],
)
def test_wrong_rules_are_refused_by_name(rules, stacked, message):
    with pytest.raises(ValueError, match=message):
        resolve_axes(PARAMS, rules, stacked)


def test_a_tree_without_leaves_has_nothing_to_cover():
    assert resolve_axes({"a": None}, [("kernel", 0)]) == {"a": None}


# Entries of everyday size, and zeros, so that whole units can be zero.
numbers = st.floats(0.01, 10) | st.floats(-10, -0.01) | st.just(0.0)
# One shape, so that the operations compile once.
arrays = hnp.arrays(np.float64, (3, 4), elements=numbers)
pairs = st.tuples(arrays, arrays, st.sampled_from([(0,), (1,), (0, 1)]))


@given(pairs)
@settings(max_examples=60, deadline=None)
def test_projection_is_orthogonal_shorter_and_idempotent(case):
    with jax.enable_x64(True):
        u, w, axes = case
        tangent = np.asarray(project_tangent(jnp.asarray(u), jnp.asarray(w), axes, 0.0))
        radial = np.sum(tangent * w, axis=axes)
        scale = np.sum(np.abs(u * w), axis=axes)
        assert (np.abs(radial) <= 1e-14 * scale).all()
        assert (np.sum(tangent**2, axis=axes) <= np.sum(u**2, axis=axes) + 1e-12).all()
        twice = project_tangent(jnp.asarray(tangent), jnp.asarray(w), axes, 0.0)
        np.testing.assert_allclose(twice, tangent, rtol=0, atol=1e-12)
        zero = np.broadcast_to(~w.any(axis=axes, keepdims=True), w.shape)
        np.testing.assert_array_equal(tangent[zero], u[zero])


@given(pairs, st.floats(0.01, 10))
@settings(max_examples=60, deadline=None)
def test_retraction_sets_the_norm_and_keeps_the_direction(case, norm):
    with jax.enable_x64(True):
        _, w, axes = case
        retracted = retract(jnp.asarray(w), norm, axes)
        alive = np.sum(w**2, axis=axes, keepdims=True) > 0
        wanted = np.where(alive, norm, 0.0)
        np.testing.assert_allclose(unit_norm(retracted, axes), wanted, rtol=1e-13)
        cosines = cosine(retracted, jnp.asarray(w), axes)
        np.testing.assert_allclose(cosines, alive.astype(float), rtol=1e-13)


def test_cosine_is_the_angle_and_floors_the_norms(x64):
    x, y = jnp.array([[1.0], [1.0]]), jnp.array([[2.0], [0.0]])
    np.testing.assert_allclose(cosine(x, y, 0), [[np.sqrt(0.5)]], rtol=1e-15)
    # Below the floor the cosine shrinks with the vector.
    np.testing.assert_allclose(
        cosine(1e-9 * x, y, 0, eps=1e-8), [[1e-9 / 1e-8]], rtol=1e-12
    )
    np.testing.assert_array_equal(cosine(0 * x, y, 0), [[0.0]])


@pytest.mark.parametrize("shape", [(4, 0), (0, 4), (0, 0)])
def test_empty_leaves(shape):
    x = jnp.zeros(shape)
    assert unit_norm(x, 0).shape == (1, shape[1])
    assert project_tangent(x, x, 0).shape == shape
    assert retract(x, 1.0, 0).shape == shape


def test_bfloat16_in_and_out_with_float32_sums():
    """4096 ones: a bfloat16 sum of squares would stop at 256."""
    w = jnp.ones((4096, 2), jnp.bfloat16)
    norm = unit_norm(w, 0)
    assert norm.dtype == jnp.float32
    np.testing.assert_array_equal(norm, [[64.0, 64.0]])
    assert retract(w, norm, 0).dtype == jnp.bfloat16
    np.testing.assert_array_equal(retract(w, norm, 0), w)
    tangent = project_tangent(w, w, 0)
    assert tangent.dtype == jnp.bfloat16
    assert jnp.abs(tangent).max() < 1e-6


@pytest.mark.parametrize(
    "fn",
    [
        lambda w: unit_norm(w, 0).sum(),
        lambda w: retract(w, 2.0, 0).sum(),
        lambda w: project_tangent(jnp.ones_like(w), w, 0).sum(),
        lambda w: cosine(w, jnp.ones_like(w), 0).sum(),
        lambda w: cosine(jnp.ones_like(w), w, 0).sum(),
    ],
    ids=["norm", "retract", "tangent", "cosine", "cosine_of_ones"],
)
def test_gradients_at_a_zero_unit_are_finite(fn):
    w = jnp.array([[0.0, 3.0], [0.0, 4.0]])
    gradient = jax.grad(fn)(w)
    assert np.isfinite(gradient).all()
    # The unit that is not zero has the gradient of a smooth function.
    step = jnp.array([[0.0, 1e-2], [0.0, 0.0]])
    slope = (fn(w + step) - fn(w - step)) / 2e-2
    np.testing.assert_allclose(gradient[0, 1], slope, rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("broken", [jnp.nan, jnp.inf])
def test_a_diverged_unit_is_not_taken_for_an_empty_one(broken):
    w = jnp.array([[broken, 0.0, 3.0], [1.0, 0.0, 4.0]])
    ones = jnp.ones_like(w)
    norm = np.asarray(unit_norm(w, 0))
    np.testing.assert_array_equal(norm, [[broken, 0.0, 5.0]])
    for found in (
        retract(w, 1.0, 0),
        project_tangent(ones, w, 0),
        cosine(w, ones, 0),
        cosine(ones, w, 0),
    ):
        assert not np.isfinite(found[0, 0])
        assert np.isfinite(found[:, 1:]).all()
        if np.isnan(broken):
            assert np.isnan(found[:, 0]).all()


def test_only_one_layer_of_a_stack_is_projected_for_it(x64):
    """Axes may be given whole; the stack axis then separates layers."""
    w = jnp.arange(1.0, 13.0).reshape(2, 3, 2)
    axes = Axes(reduce=(1,), stack=(0,))
    layer = axes.layer(3)
    np.testing.assert_allclose(
        unit_norm(w, layer)[:, 0, 0],
        np.linalg.norm(np.asarray(w).reshape(2, 6), axis=1),
    )
    each = jnp.stack([project_tangent(w[i] ** 2, w[i], (0,)) for i in range(2)])
    np.testing.assert_allclose(project_tangent(w**2, w, axes), each)
