"""Data-dependent initialization gives every unit mean 0 and variance 1."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import data_dependent_init, weight_norm
from gnomon.parameters.stacks import unstack
from gnomon_contract.layers import DEPTH, STACKED, by_path

LAYERS = {"data_dependent_init": None}  # in a test of its own, the last

ORDER = ("z_conv/kernel", "heads/query/kernel", "a_out/kernel")


def draw(dtype=jnp.float64):
    """A convolution, two output axes, and a dense layer; names not in their order."""
    generator = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(generator.normal(0.3, 2.0, size=shape), dtype)

    return {
        "z_conv": {"kernel": normal(3, 2, 5), "bias": normal(5)},
        "heads": {"query": {"kernel": normal(5, 2, 3), "bias": normal(2, 3)}},
        "a_out": {"kernel": normal(2, 3, 4), "bias": normal(4)},
    }


def pre_activations(params, x):
    conv, query, out = params["z_conv"], params["heads"]["query"], params["a_out"]
    t1 = sum(x[:, i : i + 6] @ conv["kernel"][i] for i in range(3))
    t1 = t1 + conv["bias"][None, None]
    t2 = jnp.einsum("btc,chd->bthd", jax.nn.relu(t1), query["kernel"])
    t2 = t2 + query["bias"][None, None]
    t3 = jnp.einsum("bthd,hdo->bo", jnp.tanh(t2), out["kernel"]) + out["bias"][None]
    return dict(zip(ORDER, (t1, t2, t3), strict=True))


@pytest.fixture
def batch(x64):
    return jnp.asarray(np.random.default_rng(1).normal(1.0, 3.0, size=(40, 8, 2)))


def assert_standard(layers, units):
    for path, t in layers.items():
        over = tuple(range(t.ndim - units[path]))
        np.testing.assert_allclose(t.mean(over), 0, atol=1e-10, err_msg=path)
        np.testing.assert_allclose(t.var(over), 1, rtol=1e-8, err_msg=path)


@pytest.mark.parametrize("jit", [False, True])
def test_every_unit_of_every_layer(batch, jit):
    """Later layers see the earlier ones as set; jit loses the order, so it is given."""
    fn = jax.jit(pre_activations) if jit else pre_activations
    params = data_dependent_init(fn, draw(), batch, order=ORDER if jit else None)
    units = dict(zip(ORDER, (1, 2, 1), strict=True))
    assert_standard(pre_activations(params, batch), units)


def test_the_wrong_order_is_not_enough(batch):
    """What makes the order matter: a layer set before the one below it is off."""
    params = data_dependent_init(pre_activations, draw(), batch, order=ORDER[::-1])
    variance = pre_activations(params, batch)["a_out/kernel"].var(0)
    assert jnp.abs(variance - 1).max() > 0.1


def test_weight_norm_starts_from_it(batch):
    """g = |w| after the init, the paper's s / sqrt(var) for weights of norm one."""
    w = {"kernel": jnp.array([[0.6], [0.8]]), "bias": jnp.zeros(1)}
    x = batch[:, 0]

    def layer(params, x):
        return {"kernel": x @ params["kernel"] + params["bias"][None]}

    params = data_dependent_init(layer, w, x)
    t = layer(w, x)["kernel"]
    state = weight_norm(optax.sgd(0.1), eps=0).init(params)
    np.testing.assert_allclose(state.latents.scale["kernel"], 1 / t.std(0), rtol=1e-8)
    np.testing.assert_allclose(params["bias"], -t.mean(0) / t.std(0), rtol=1e-8)


def test_constant_units_keep_their_weights_and_dtypes_are_kept(batch):
    params = draw(jnp.bfloat16)
    x = batch.astype(jnp.bfloat16)
    params["z_conv"]["kernel"] = params["z_conv"]["kernel"].at[..., 0].set(0)
    after = data_dependent_init(pre_activations, params, x)
    np.testing.assert_array_equal(after["z_conv"]["kernel"][..., 0], 0)
    assert {leaf.dtype for leaf in jax.tree.leaves(after)} == {jnp.dtype(jnp.bfloat16)}
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


@pytest.mark.parametrize(
    ("fn", "order", "message"),
    [
        (pre_activations, ORDER[:2], "does not name the layers"),
        (lambda params, x: {"kernle": x}, None, "no parameter with units"),
        (lambda params, x: {"a_out/bias": x}, None, "no parameter with units"),
        (lambda params, x: {"a_out/kernel": x}, None, "does not end in the unit axes"),
    ],
)
def test_bad_input_is_refused(batch, fn, order, message):
    with pytest.raises(ValueError, match=message):
        data_dependent_init(fn, draw(), batch, order=order)


def test_stacked_layers():
    """Layers of a stack are set one after another, each on what the last puts out."""
    generator = np.random.default_rng(0)
    batch = generator.normal(size=(32, 4)).astype(np.float32)
    blocks = [
        {
            "up": {"kernel": generator.normal(size=(4, 6)), "bias": np.ones(6)},
            "down": {"kernel": generator.normal(size=(6, 4)), "bias": np.ones(4)},
        }
        for _ in range(DEPTH)
    ]
    blocks = jax.tree.map(np.float32, blocks)
    stack = jax.tree.map(lambda *x: np.stack(x), *blocks)

    def of_list(params, x):
        found = {}
        for i in sorted(params["blocks"]):
            for name in ("up", "down"):
                layer = params["blocks"][i][name]
                x = x @ layer["kernel"] + layer["bias"][None]
                found[f"blocks/{i}/{name}/kernel"] = x
                x = jnp.tanh(x)
        return found

    def of_stack(params, x, prefix):
        def block(x, layers):
            seen = {}
            for name in ("up", "down"):
                x = x @ layers[name]["kernel"] + layers[name]["bias"][None]
                seen[f"{prefix}{name}/kernel"] = x
                x = jnp.tanh(x)
            return x, seen

        stack = params["blocks"].get("stacked", params["blocks"])
        found = jax.lax.scan(block, x, stack)[1]
        return {
            f"{prefix}{name}/kernel": found[f"{prefix}{name}/kernel"]
            for name in ("up", "down")
        }

    listed = {"blocks": {str(i): block for i, block in enumerate(blocks)}}
    wanted = by_path(data_dependent_init(of_list, listed, batch))
    for params, prefix, stacked in (
        ({"blocks": {"stacked": stack}}, "blocks/stacked/", None),
        ({"blocks": stack}, "blocks/", STACKED),
    ):
        layers = functools.partial(of_stack, prefix=prefix)
        found = data_dependent_init(layers, params, batch, stacked=stacked)
        found = by_path(unstack(found, stacked))
        assert found.keys() == wanted.keys()
        for path, leaf in wanted.items():
            np.testing.assert_allclose(found[path], leaf, rtol=2e-5, atol=2e-6)
