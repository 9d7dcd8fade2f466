"""`functional` gives pure functions over plain dictionaries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gnomon.models import MLP, ResNet, TransformerLM, functional

MODELS = {
    "transformer": (
        TransformerLM,
        {"vocab": 16, "width": 8, "depth": 1},
        np.zeros((2, 5), np.uint8),
    ),
    "scanned": (
        TransformerLM,
        {"vocab": 16, "width": 8, "depth": 2, "scan": True},
        np.zeros((2, 5), np.uint8),
    ),
    "mlp": (MLP, {"inputs": 6, "widths": (5,)}, np.ones((2, 6), np.float32)),
    "resnet": (
        ResNet,
        {"width": 2, "blocks": (1,)},
        np.arange(128, dtype=np.float32).reshape(2, 8, 8, 1) / 128,
    ),
}


@pytest.fixture(params=MODELS)
def case(request):
    model, kwargs, inputs = MODELS[request.param]
    return functional(model, **kwargs), inputs


def plain(tree):
    """Whether a tree is dictionaries with string keys down to arrays."""
    if isinstance(tree, dict):
        return all(type(k) is str and plain(v) for k, v in tree.items())
    return isinstance(tree, jax.Array)


def test_vmapped_init_over_keys_equals_a_loop(case):
    net, _ = case
    keys = jax.random.split(jax.random.key(1), 3)
    together = jax.device_get(jax.jit(jax.vmap(net.init))(keys))
    single = jax.jit(net.init)
    for i in range(3):
        alone = single(keys[i])
        assert plain(alone[0])
        assert plain(alone[1])
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, alone
        )
    for path, x in jax.tree.leaves_with_path(together[0]):
        drawn = path[-1].key in ("kernel", "embedding")
        assert bool(np.any(x[0] != x[1])) == drawn


def test_vmapped_gradients_over_models_equal_a_loop(case):
    net, inputs = case
    params, stats = jax.device_get(jax.jit(net.init)(jax.random.key(2)))
    lanes = [
        (params, stats, inputs),
        (jax.tree.map(lambda x: 0.5 * x, params), stats, inputs[::-1]),
    ]

    def gradient(params, stats, inputs):
        def loss(params):
            outputs, new = net.apply(params, stats, inputs, train=True)
            return jnp.mean(jnp.sin(outputs)), new

        return jax.grad(loss, has_aux=True)(params)

    stacked = jax.tree.map(lambda *x: np.stack(x), *lanes)
    together = jax.device_get(jax.jit(jax.vmap(gradient))(*stacked))
    single = jax.jit(gradient)
    for i, lane in enumerate(lanes):
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-5),
            together,
            single(*lane),
        )


def test_training_statistics_come_back_and_are_not_written_in_place():
    model, kwargs, inputs = MODELS["resnet"]
    net = functional(model, **kwargs)
    params, stats = jax.jit(net.init)(jax.random.key(0))
    before = jax.tree.map(np.array, (params, stats))
    _, new = net.apply(params, stats, inputs, train=True)
    jax.tree.map(np.testing.assert_array_equal, before, (params, stats))
    assert np.any(np.asarray(new["stem_norm"]["mean"]) != 0)


def test_a_tree_of_another_structure_is_refused():
    net = functional(MLP, inputs=3, widths=(2,))
    params, stats = net.init(jax.random.key(0))
    x = jnp.ones((1, 3))
    with pytest.raises(ValueError, match="params: no entry head/bias"):
        net.apply({"hidden": params["hidden"]}, stats, x, train=False)
    with pytest.raises(ValueError, match="params: 5 arrays for a model of 4"):
        net.apply({**params, "extra": jnp.ones(1)}, stats, x, train=False)


class Noisy(nnx.Module):
    """Dropout alone: a model that draws random numbers."""

    def __init__(self, *, rngs):
        self.scale = nnx.Param(jnp.ones(()))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, inputs, *, train):
        return self.dropout(inputs, deterministic=not train) * self.scale[...]


def test_the_key_alone_decides_a_models_randomness():
    net = functional(Noisy)
    params, stats = net.init(jax.random.key(0))
    x = jnp.ones(256)

    def draw(seed):
        return net.apply(params, stats, x, train=True, key=jax.random.key(seed))[0]

    np.testing.assert_array_equal(draw(1), draw(1))
    assert np.any(draw(1) != draw(2))
    assert set(np.unique(draw(1))) == {0.0, 2.0}
    np.testing.assert_array_equal(net.apply(params, stats, x, train=False)[0], x)
    with pytest.raises(ValueError, match=r"key: .* pass apply\(..., key="):
        net.apply(params, stats, x, train=True)


class Counting(nnx.Module):
    """Keeps a variable that a pure apply has no place for."""

    def __init__(self, *, rngs):
        self.calls = nnx.Cache(jnp.zeros(()))


def test_unknown_variables_are_refused_by_name():
    with pytest.raises(TypeError, match=r"calls \(Cache\) is neither nnx.Param"):
        functional(Counting)
