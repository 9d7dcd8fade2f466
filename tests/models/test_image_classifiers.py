"""The MLP and the ResNet, and what batch normalization keeps."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gnomon.models import MLP, ResNet, functional, parameter_count
from gnomon.models.resnet import ResidualBlock

RESNET = {"width": 4, "blocks": (1, 1), "channels": 2}


def images(batch, seed=0, size=8, channels=2):
    rng = np.random.default_rng(seed)
    return rng.normal(1.0, 2.0, (batch, size, size, channels)).astype(np.float32)


def test_mlp_is_affine_maps_with_relu_between(build):
    apply, params, stats = build(MLP, inputs=12, widths=(7, 5), classes=3)
    params = jax.tree.map(lambda x: x + 0.1, params)  # biases start at zero
    x = np.random.default_rng(0).normal(size=(4, 3, 2, 2)).astype(np.float32)
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    y = x.reshape(4, 12)
    for layer in ("0", "1"):
        y = np.maximum(y @ p["hidden"][layer]["kernel"] + p["hidden"][layer]["bias"], 0)
    y = y @ p["head"]["kernel"] + p["head"]["bias"]
    outputs, _ = apply(params, stats, x, train=False)
    np.testing.assert_allclose(outputs, y, atol=1e-5)


@pytest.mark.parametrize("widths", [(), (6,), (6, 5, 4)])
def test_mlp_parameter_count_is_the_closed_formula(widths):
    net = functional(MLP, inputs=9, widths=widths, classes=3)
    params, _ = jax.eval_shape(net.init, jax.random.key(0))
    sizes = (9, *widths, 3)
    assert parameter_count(params) == sum(a * b + b for a, b in pairwise(sizes))


def test_training_moves_the_running_statistics_by_the_stated_rule(build):
    apply, params, stats = build(ResNet, **RESNET)
    x = images(4)
    _, new = apply(params, stats, x, train=True)
    stem = jax.lax.conv_general_dilated(
        x,
        params["stem"]["kernel"],
        (1, 1),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    stem = np.asarray(stem, np.float64).reshape(-1, 4)
    np.testing.assert_allclose(
        new["stem_norm"]["mean"], 0.1 * stem.mean(0), rtol=1e-4, atol=1e-6
    )
    np.testing.assert_allclose(
        new["stem_norm"]["var"], 0.9 + 0.1 * stem.var(0), rtol=1e-4
    )
    changed = jax.tree.map(lambda a, b: np.any(a != np.asarray(b)), stats, new)
    assert all(jax.tree.leaves(changed))


def test_evaluation_uses_the_running_statistics_and_keeps_them(build):
    apply, params, stats = build(ResNet, **RESNET)
    x = images(4)
    outputs, kept = apply(params, stats, x, train=False)
    jax.tree.map(np.testing.assert_array_equal, kept, stats)
    # An example's score does not depend on its neighbours in evaluation ...
    alone, _ = apply(params, stats, x[:1], train=False)
    np.testing.assert_allclose(alone, outputs[:1], atol=1e-5)
    # ... it does in training ...
    batch, _ = apply(params, stats, x, train=True)
    other, _ = apply(params, stats, np.concatenate([x[:1], 3 * x[1:]]), train=True)
    assert np.abs(batch - other)[0].max() > 1e-3
    # ... and the statistics are what evaluation normalizes by.
    moved = jax.tree.map(lambda s: s + 0.5, stats)
    assert np.abs(apply(params, moved, x, train=False)[0] - outputs).max() > 1e-3


def test_running_statistics_converge_until_evaluation_equals_training(build):
    apply, params, stats = build(ResNet, **RESNET)
    x = images(8)
    # The first layers must settle before the later ones see their final input; in
    # training each normalizes by the batch, so all converge at the rate 0.9^steps.
    for _ in range(150):
        batch, stats = apply(params, stats, x, train=True)
    np.testing.assert_allclose(
        apply(params, stats, x, train=False)[0], batch, atol=1e-3
    )


@pytest.mark.parametrize(("padding", "border"), [("SAME", (0, 1)), ("even", (1, 1))])
def test_the_border_at_stride_two_is_where_it_was_chosen(build, padding, border):
    block = ResidualBlock(
        2,
        4,
        2,
        padding=padding,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )
    x = images(2)
    wanted = jax.lax.conv_general_dilated(
        x,
        block.conv1.kernel[...],
        (2, 2),
        (border, border),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(block.conv1(x), wanted, atol=1e-5)
    # The shortcut has no border, and the model is the same size either way.
    assert block(x, train=False).shape == (2, 4, 4, 4)
    apply, params, stats = build(ResNet, **RESNET, padding=padding)
    assert apply(params, stats, x, train=False)[0].shape == (2, 10)
    with pytest.raises(ValueError, match="padding='odd': must be"):
        build(ResNet, **RESNET, padding="odd")


def test_resnet_halves_odd_images_too(build):
    apply, params, stats = build(
        ResNet, width=2, blocks=(1, 2, 1), classes=5, channels=3
    )
    x = images(3, size=7, channels=3)
    outputs, _ = apply(params, stats, x, train=True)
    assert outputs.shape == (3, 5)
    assert outputs.dtype == jnp.float32


@pytest.mark.parametrize(
    ("model", "kwargs"),
    [(MLP, {"inputs": 128, "widths": (16,)}), (ResNet, RESNET)],
)
def test_bfloat16_computes_near_float32(build, model, kwargs):
    full, params, stats = build(model, **kwargs)
    half, half_params, _ = build(model, **kwargs, dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, params, half_params)
    exact, exact_stats = full(params, stats, images(4), train=True)
    rounded, rounded_stats = half(params, stats, images(4), train=True)
    assert rounded.dtype == jnp.float32
    assert {s.dtype for s in jax.tree.leaves(rounded_stats)} <= {np.dtype("float32")}
    exact, error = np.asarray(exact), np.asarray(rounded) - exact
    error = np.linalg.norm(error) / np.linalg.norm(exact)
    assert 1e-4 < error < 3e-2
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-2, atol=2e-2),
        rounded_stats,
        exact_stats,
    )


@pytest.mark.parametrize(
    ("model", "kwargs"),
    [(MLP, {"inputs": 128, "widths": (32,)}), (ResNet, RESNET)],
)
def test_memorizes_random_labels(fit, cross_entropy, model, kwargs):
    net = functional(model, **kwargs)
    params, stats = jax.jit(net.init)(jax.random.key(0))
    x, labels = jnp.asarray(images(8)), jnp.arange(8)

    def loss(params):
        return cross_entropy(net.apply(params, stats, x, train=True)[0], labels)

    losses = fit(loss, params, steps=80, rate=1e-2)
    assert losses[0] > 1.5
    assert losses[-1] < 0.05


@pytest.mark.parametrize(
    ("model", "kwargs", "message"),
    [
        (MLP, {"activation": "rleu"}, "activation: 'rleu' is unknown; did you mean"),
        (MLP, {"widths": (8, 0)}, r"widths\[1\]: 0 must be at least 1"),
        (ResNet, {"blocks": (1, 0)}, r"blocks\[1\]: 0 must be at least 1"),
        (ResNet, {"width": 0}, "width: 0 must be at least 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(model, kwargs, message):
    with pytest.raises(ValueError, match=message):
        functional(model, **kwargs)


def test_mlp_names_the_size_it_was_built_without():
    net = functional(MLP, inputs=4, widths=())
    params, stats = net.init(jax.random.key(0))
    with pytest.raises(ValueError, match="build the model with inputs=6"):
        net.apply(params, stats, jnp.ones((1, 2, 3)), train=False)
