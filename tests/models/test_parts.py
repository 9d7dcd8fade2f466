"""Norms, placements and initializers are parts: any of them goes into any model."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gnomon.models import MLP, ResNet, TransformerLM, functional, part, placements
from gnomon.models.initialization import gaussian
from gnomon.models.layers import fan_in
from gnomon.models.normalization import BatchNorm, LayerNorm
from gnomon.models.placements import Connection
from gnomon.models.residual import PreActivationBlock, ResidualBlock

SMALL = {"vocab": 16, "width": 8, "depth": 2, "head_dim": 4}


def tokens(shape=(2, 6)):
    return np.random.default_rng(0).integers(0, 16, shape)


def later_layers_weigh_less(x, branch, norm, *, index, depth):
    """A placement of this file's own that asks for what a block knows."""
    share = 1 - (jnp.asarray(index, x.dtype) - 1) / depth
    return x + branch(norm(x) * share)


@pytest.mark.parametrize(
    ("placement", "wanted"),
    [
        (placements.pre, 3 + 10 * (3 + 1)),
        (placements.post, 3 + 10 * 3 + 1),
        (placements.sandwich, 3 + 10 * (3 + 1) + 2),
        (placements.bare, 3 + 10 * 3),
        (part(later_layers_weigh_less, depth=4, index=3), 3 + 10 * (3 + 1) / 2),
    ],
)
def test_a_placement_is_its_formula(placement, wanted):
    """The branch multiplies by ten; the first norm adds one, the second two."""
    names = Connection.of(placement).norms
    norms = [lambda x, shift=shift: x + shift for shift in (1.0, 2.0)][: len(names)]
    assert placement(jnp.asarray(3.0), lambda x: 10.0 * x, *norms) == wanted


@pytest.mark.parametrize(
    ("placement", "norm"),
    [
        (placements.sandwich, BatchNorm),
        (
            {"attention": later_layers_weigh_less, "mlp": placements.post},
            part(LayerNorm, epsilon=1e-3),
        ),
    ],
)
def test_a_transformer_of_other_parts_scans_as_it_unrolls(placement, norm):
    """Values, gradients, and what the norms keep of the batch."""
    parts = {"placement": placement, "norm": norm, **SMALL}
    unrolled = functional(TransformerLM, **parts)
    scanned = functional(TransformerLM, **parts, scan=True)
    params, stats = jax.jit(unrolled.init)(jax.random.key(0))

    def stack(tree):
        if "blocks" not in tree:
            return tree
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *tree["blocks"].values())
        return {**tree, "blocks": {"stacked": stacked}}

    def step(net):
        def loss(params, stats):
            logits, stats = net.apply(params, stats, tokens(), train=True)
            return jnp.mean(jnp.sin(logits)), (logits, stats)

        return jax.jit(jax.grad(loss, has_aux=True))

    grads, (logits, after) = step(unrolled)(params, stats)
    found = step(scanned)(stack(params), stack(stats))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=2e-5),
        found,
        (stack(grads), (logits, stack(after))),
    )
    moved = jax.tree.map(lambda a, b: np.any(a != b), stats, after)
    assert all(jax.tree.leaves(moved))
    assert (norm is BatchNorm) == bool(jax.tree.leaves(after))


def test_a_block_knows_its_place(build):
    """The same weights in every layer, and yet not the same map."""
    apply, params, _ = build(TransformerLM, placement=later_layers_weigh_less, **SMALL)
    plain = build(TransformerLM, **SMALL)[0]
    # Pre-norm whose gains fall with the layer is the same function.
    folded = jax.tree.map(jnp.asarray, params)
    for name in ("attention_norm", "mlp_norm"):
        folded["blocks"]["1"][name]["scale"] *= 0.5
    found, _ = apply(params, {}, tokens(), train=False)
    wanted, _ = plain(folded, {}, tokens(), train=False)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (lambda x: x, "has to be a function"),
        (lambda x, branch, *, dept: x, r"index.*needs \['dept'\]"),
        ({"mlp": placements.pre}, "one for each of attention, mlp"),
    ],
)
def test_what_is_no_placement_is_refused(placement, message):
    with pytest.raises(ValueError, match=message):
        functional(TransformerLM, placement=placement, **SMALL)


@pytest.mark.parametrize(
    ("model", "kwargs", "roles"),
    [
        (
            TransformerLM,
            {**SMALL, "tied": False, "depth": 1},
            "embed:embedding attention/query:hidden attention/key:hidden "
            "attention/value:hidden attention/out:residual mlp/up:hidden "
            "mlp/down:residual head:head",
        ),
        (
            ResNet,
            {"width": 2, "blocks": (1, 1)},
            "stem:hidden conv1:hidden conv2:residual conv1:hidden conv2:residual "
            "shortcut:hidden head:head",
        ),
        (MLP, {"widths": (4, 4)}, "hidden/0:hidden hidden/1:hidden head:head"),
    ],
)
def test_a_scheme_is_asked_for_every_kernel_and_obeyed(model, kwargs, roles):
    asked = []

    def halved(kernel):
        asked.append(kernel)
        if kernel.role == "residual":
            return lambda key, shape, dtype: jnp.zeros(shape, dtype)
        return gaussian(kernel._replace(variance=kernel.variance / 4))

    key = jax.random.key(0)
    params, _ = functional(model, init=halved, **kwargs).init(key)
    calls = len(asked) // 2  # once for its structure, once for its values
    listed = " ".join(f"{kernel.name}:{kernel.role}" for kernel in asked[:calls])
    assert set(listed.split()) == set(roles.split())
    plain, _ = functional(model, **kwargs).init(key)

    def compare(path, found, default):
        names = [str(k.key) for k in path]
        if names[-1] not in ("kernel", "embedding"):
            np.testing.assert_array_equal(found, default)
        elif names[-2] in ("out", "down", "conv2"):
            assert not found.any()
        else:
            np.testing.assert_allclose(found, default / 2, rtol=1e-6)

    jax.tree_util.tree_map_with_path(compare, params, plain)


def test_residual_blocks_of_zero_kernels_are_the_identity():
    """What a scheme by role is for: Fixup and its kin start so."""

    def zero_branches(kernel):
        if kernel.role == "residual":
            return lambda key, shape, dtype: jnp.zeros(shape, dtype)
        return fan_in(kernel.variance)

    shallow, deep = (
        functional(TransformerLM, **{**SMALL, "depth": depth}, init=zero_branches)
        for depth in (1, 2)
    )
    outputs = []
    for net in (shallow, deep):
        params, _ = net.init(jax.random.key(0))
        outputs.append(net.apply(params, {}, tokens((1, 2)), train=False)[0])
    np.testing.assert_array_equal(*outputs)


IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 2)).astype(np.float32)


@pytest.mark.parametrize(("inputs", "stride"), [(4, 1), (2, 2)])
def test_pre_activation_adds_to_a_stream_that_nothing_touches(inputs, stride):
    block = PreActivationBlock(
        inputs,
        4,
        stride,
        dtype=jnp.float32,
        param_dtype=jnp.float32,
        rngs=nnx.Rngs(0),
    )
    x = jnp.asarray(np.tile(IMAGES, inputs // 2))
    y = jax.nn.relu(block.norm1(x, train=True))
    stream = x if stride == 1 else block.shortcut(y)
    wanted = stream + block.conv2(jax.nn.relu(block.norm2(block.conv1(y), train=True)))
    np.testing.assert_allclose(block(x, train=True), wanted, atol=1e-5)
    block.conv2.kernel[...] = jnp.zeros_like(block.conv2.kernel[...])
    np.testing.assert_array_equal(block(x, train=True), stream)


@pytest.mark.parametrize(
    ("placement", "norm", "names"),
    [
        (ResidualBlock, LayerNorm, {"stem", "stem_norm", "blocks", "head"}),
        (PreActivationBlock, BatchNorm, {"stem", "final_norm", "blocks", "head"}),
    ],
)
def test_a_resnet_takes_other_parts(build, placement, norm, names):
    apply, params, stats = build(
        ResNet,
        width=4,
        blocks=(1, 1),
        channels=2,
        placement=placement,
        norm=norm,
    )
    assert params.keys() == names
    outputs, after = apply(params, stats, IMAGES, train=True)
    assert outputs.shape == (4, 10)
    assert bool(stats) == (norm is BatchNorm)
    changed = jax.tree.map(lambda a, b: np.any(a != b), stats, after)
    assert all(jax.tree.leaves(changed))
    # The head sees features of a normalized stream either way: of order one.
    assert 0.1 < np.std(outputs) < 10


def test_an_mlp_normalizes_before_each_activation(build):
    apply, params, stats = build(
        MLP, inputs=128, widths=(6, 5), classes=3, norm=BatchNorm
    )
    assert params["norms"].keys() == stats["norms"].keys() == {"0", "1"}
    outputs, _ = apply(params, stats, IMAGES, train=True)
    # What an affine layer adds to all examples, or multiplies all by, is not seen.
    moved = jax.tree.map(lambda x: x, params)
    moved["hidden"]["0"] = jax.tree.map(lambda x: 3 * x + 1, params["hidden"]["0"])
    moved["hidden"]["0"]["kernel"] = 3 * params["hidden"]["0"]["kernel"]
    again, _ = apply(moved, stats, IMAGES, train=True)
    np.testing.assert_allclose(again, outputs, atol=1e-3)
