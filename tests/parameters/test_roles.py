"""What a leaf is for has one answer, in every method that asks."""

import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from gnomon import optimizers as o
from gnomon.models import MLP, ResNet, TransformerLM, functional
from gnomon.parameters import roles as module
from gnomon.parameters.paths import path_string
from gnomon.parameters.roles import Role, roles


class Numbered(nn.Module):
    """Layers that linen names itself."""

    @nn.compact
    def __call__(self, x):
        for width in (8, 8):
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(3)(x)


class Tokens(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.Embed(8, 4)(x)
        return nn.Dense(8, name="lm_head")(nn.LayerNorm()(nn.Dense(4)(x)))


def linen(model, dtype=jnp.float32):
    return model.init(jax.random.key(0), jnp.zeros((2, 4), dtype))


def nnx_sequence():
    rngs = nnx.Rngs(0)
    model = nnx.Sequential(
        nnx.Linear(4, 8, rngs=rngs), nnx.relu, nnx.Linear(8, 3, rngs=rngs)
    )
    return nnx.state(model, nnx.Param)


def own(model, **kwargs):
    return functional(model, **kwargs).init(jax.random.key(0))[0]


LM = dict(vocab=8, width=4, depth=2, head_dim=2)
CASES = {
    "linen": (lambda: linen(Numbered()), {"params/Dense_2/kernel": True}, set()),
    "linen without params/": (
        lambda: linen(Numbered())["params"],
        {"Dense_2/kernel": True},
        set(),
    ),
    "linen tokens": (
        lambda: linen(Tokens(), jnp.int32),
        {"params/lm_head/kernel": False},
        {"params/Embed_0/embedding"},
    ),
    "nnx sequence": (nnx_sequence, {"layers/2/kernel": True}, set()),
    "a list": (
        lambda: [{"kernel": np.ones((4, 4))}, {"kernel": np.ones((4, 3))}],
        {"1/kernel": True},
        set(),
    ),
    "by hand": (
        lambda: {f"linear{i}": {"kernel": np.ones((4, 4))} for i in (1, 2)},
        {"linear2/kernel": True},
        set(),
    ),
    "mlp": (
        lambda: own(MLP, inputs=4, widths=(8,), classes=3),
        {"head/kernel": False},
        set(),
    ),
    "resnet": (lambda: own(ResNet, width=4), {"head/kernel": False}, set()),
    "lm": (
        lambda: own(TransformerLM, **LM, tied=False),
        {"head/kernel": False},
        {"embed/embedding"},
    ),
    "lm, tied": (lambda: own(TransformerLM, **LM), {}, {"embed/embedding"}),
    "lm, scanned": (
        lambda: own(TransformerLM, **LM, tied=False, scan=True),
        {"head/kernel": False},
        {"embed/embedding"},
    ),
}


def named(*paths):
    """A tree of matrices of these names."""
    tree = {}
    for path in paths:
        node = tree
        for name in path.split("/"):
            node = node.setdefault(name, {})
        node["kernel"] = np.ones((4, 4))
    return tree


def in_layers(*names):
    return [f"{n.replace('*', str(i))}" for i in range(2) for n in names]


# Names that say head of a model, and of a layer that there are several of nothing.
HEADS = ("output", "multi_head", "output_dense", "classifier", "readout", "out")
CASES |= {
    f"{name} in {layer}": (
        lambda layer=layer, name=name: named(
            *in_layers(f"{layer}/{name}/dense", f"{layer}/{name}")
        ),
        {},
        set(),
    )
    for name in HEADS
    for layer in ("encoder/layer/*", "layers_*", "*", "block*", "Block_*")
}
CASES |= {
    "names of BERT": (
        lambda: named(
            *in_layers(
                "encoder/layer/*/attention/self/query",
                "encoder/layer/*/attention/output/dense",
                "encoder/layer/*/output/dense",
            ),
            "Dense_0",
        ),
        {"Dense_0/kernel": True},
        set(),
    ),
    "in a module that is counted": (
        lambda: named("LM_0/Dense_0", "LM_0/lm_head"),
        {"LM_0/lm_head/kernel": False},
        set(),
    ),
    "out": (lambda: named("inner", "out"), {"out/kernel": True}, set()),
    "output": (
        lambda: named("inner", "output", "layers_0/output"),
        {"output/kernel": False},
        set(),
    ),
}


def by_path(tree, leaf=Role):
    leaves = jax.tree_util.tree_leaves_with_path(
        tree, is_leaf=lambda x: x is None or isinstance(x, leaf)
    )
    return {path_string(path): value for path, value in leaves}


@pytest.fixture(params=CASES)
def case(request):
    make, heads, embeddings = CASES[request.param]
    module._warn.cache_clear()
    return make(), heads, embeddings


def test_roles(case):
    params, heads, embeddings = case
    found = by_path(roles(params))
    assert {p: r.guess for p, r in found.items() if r.role == "head"} == heads
    assert {p for p, r in found.items() if r.role == "embedding"} == embeddings
    assert all(r.guess is False for p, r in found.items() if p not in heads)


def test_methods_agree(case):
    """And say aloud, once, what is a guess."""
    params, heads, _ = case
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(2):
            numbers = by_path(
                o.hidden_matrices(params), optax.contrib.MuonDimensionNumbers
            )
    hidden = {p for p, r in by_path(roles(params)).items() if r.role == "hidden"}
    assert {p for p, n in numbers.items() if n is not None} == hidden
    guessed = [path for path, guess in heads.items() if guess]
    assert len(said) == len(guessed)
    for warning, path in zip(said, guessed, strict=True):
        assert path in str(warning.message)
        assert "outer=" in str(warning.message)

    inner = optax.identity()
    ball = by_path(o.hyperball(inner, 0.1).init(params).radius, jax.Array)
    held = {path for path, norm in ball.items() if norm is not None}
    assert held == hidden | set(heads)


def test_numbered_output_layer_is_not_rescaled():
    params = linen(Numbered())["params"]
    wide = jax.tree.map(lambda w: 3 * w, params)
    module._warn.cache_clear()
    optimizer = o.target_variance_rescaling(optax.sgd(0.0), every=1)
    with pytest.warns(UserWarning, match="'Dense_2/kernel' for an output layer"):
        state = optimizer.init(wide)
    updates, _ = optimizer.update(params, state, wide)
    moved = optax.apply_updates(wide, updates)
    for layer in ("Dense_0", "Dense_1"):
        assert jnp.std(moved[layer]["kernel"]) == pytest.approx(0.02, rel=0.02)
    np.testing.assert_array_equal(moved["Dense_2"]["kernel"], wide["Dense_2"]["kernel"])
    with pytest.warns(UserWarning, match="layer_index_rescaling"):
        drawn = o.layer_index_rescaling(jax.random.key(0), params, std=1.0)
    # The second layer is narrowed, the last drawn as those outside the layers.
    assert jnp.std(drawn["Dense_1"]["kernel"]) == pytest.approx(0.5**0.5, rel=0.3)
    assert jnp.std(drawn["Dense_2"]["kernel"]) == pytest.approx(1.0, rel=0.3)
