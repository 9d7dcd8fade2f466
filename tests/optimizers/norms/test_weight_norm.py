"""Weight normalization: its identities, its axes, and what it refuses."""

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import pallas as pl

from gnomon import optimizers
from gnomon.optimizers import WeightNormLatents, weight_norm
from gnomon_contract import Row, Verified, around_adamp

ROWS = (
    Row(
        "weight_norm",
        around_adamp(weight_norm),
        {"learning_rate": 0.05, "eps": 1e-8},
        covers=("weight_norm",),
    ),
)
LAYERS = {"weight_norm": lambda i, **s: weight_norm(i, **s)}

# Shape and the shape of the units of each kind of leaf; None where there are none.
KINDS = {
    "dense/kernel": ((4, 3), (3,)),
    "conv/kernel": ((2, 2, 3, 5), (5,)),
    "deconv/kernel": ((2, 2, 3, 5), (3,)),
    "embed/embedding": ((6, 3), (6,)),
    "attention/query/kernel": ((4, 2, 3), (2, 3)),
    "attention/out/kernel": ((2, 3, 4), (4,)),
    "blocks/kernel": ((2, 4, 3), (2, 3)),
    "dense/bias": ((3,), None),
    "attention/query/bias": ((2, 3), None),
    "temperature": ((), None),
}
# A transposed convolution that stores its outputs before its inputs, and a stack.
GEOMETRY = {"rules": [("deconv", (0, 1, 3))], "stacked": "blocks/"}
VERIFIED = {"weight_norm": Verified("B01", "torch 2.13.0", 1e-10)}


def draw(seed, dtype=jnp.float64):
    generator = np.random.default_rng(seed)
    return {
        path: jnp.asarray(generator.normal(size=shape), dtype)
        for path, (shape, _) in KINDS.items()
    }


def step(optimizer, params, grads, state=None):
    """(updated params, new state) after one step."""
    state = optimizer.init(params) if state is None else state
    updates, state = optimizer.update(grads, state, params)
    return optax.apply_updates(params, updates), state


def assert_close(actual, expected, atol):
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=0, atol=atol),
        actual,
        expected,
    )


def inner_axes(path):
    """The axes inside one unit, written down leaf by leaf."""
    return {
        "dense/kernel": (0,),
        "conv/kernel": (0, 1, 2),
        "deconv/kernel": (0, 1, 3),
        "embed/embedding": (1,),
        "attention/query/kernel": (0,),
        "attention/out/kernel": (0, 1),
        "blocks/kernel": (1,),
    }.get(path)


@pytest.mark.parametrize("path", KINDS)
def test_one_scale_a_unit(x64, path):
    """Scales start at the norms over the axes of the leaf's kind, as one vector."""
    params = draw(0)
    latents = weight_norm(optax.sgd(0.1), eps=0, **GEOMETRY).init(params).latents
    np.testing.assert_array_equal(latents.direction[path], params[path])
    units = KINDS[path][1]
    if units is None:
        assert latents.scale[path] is None
        return
    norms = np.sqrt(np.sum(np.square(params[path]), axis=inner_axes(path)))
    assert norms.shape == units
    np.testing.assert_allclose(latents.scale[path].ravel(), norms.ravel(), rtol=1e-15)


@pytest.mark.parametrize("init", ["weight", "unit"])
@pytest.mark.parametrize("eps", [0.0, 1e-8, 1.0])
def test_a_step_of_zero_keeps_the_weights(x64, init, eps):
    """Merging what was split gives the weight back, zero units included."""
    params = draw(0)
    params["dense/kernel"] = params["dense/kernel"].at[:, 1].set(0)
    optimizer = weight_norm(optax.sgd(0.0), init=init, eps=eps, **GEOMETRY)
    after, state = step(optimizer, params, draw(1))
    assert_close(after, params, atol=1e-15)
    if init == "unit" and eps == 0:
        lengths = jnp.linalg.norm(state.latents.direction["embed/embedding"], axis=1)
        np.testing.assert_allclose(lengths, 1, rtol=1e-15)


def explicit(latents):
    """The weights of a model whose author has normalized them."""

    def weight(path, v, g):
        axes = inner_axes(path)
        if axes is None:
            return v
        norm = jnp.sqrt(jnp.sum(v * v, axis=axes, keepdims=True))
        return g * v / norm

    return {path: weight(path, *pair) for path, pair in latents.items()}


@pytest.mark.parametrize("make", [optax.sgd, optax.adam], ids=["sgd", "adam"])
def test_equals_autodiff_on_the_explicit_model(x64, make):
    """Fifty steps on a mixed tree, without epsilon."""
    params, targets = draw(0), draw(1)

    def loss(params):
        return sum(
            jnp.sum((params[p] - targets[p]) ** 2) + jnp.sum(jnp.cos(3 * params[p]))
            for p in KINDS
        )

    latents = {
        path: (
            w,
            jnp.zeros(())
            if inner_axes(path) is None
            else jnp.sqrt(jnp.sum(w * w, axis=inner_axes(path), keepdims=True)),
        )
        for path, w in params.items()
    }
    inner, optimizer = make(0.02), weight_norm(make(0.02), eps=0, **GEOMETRY)
    inner_state, state = inner.init(latents), optimizer.init(params)

    @jax.jit
    def both(params, state, latents, inner_state):
        params, state = step(optimizer, params, jax.grad(loss)(params), state)
        grads = jax.grad(lambda z: loss(explicit(z)))(latents)
        updates, inner_state = inner.update(grads, inner_state, latents)
        return params, state, optax.apply_updates(latents, updates), inner_state

    carry = params, state, latents, inner_state
    for _ in range(50):
        with jax.numpy_dtype_promotion("standard"):  # optax's Adam needs it in float64
            carry = both(*carry)
        assert_close(carry[0], explicit(carry[2]), atol=1e-10)
    assert jnp.abs(carry[0]["dense/kernel"] - params["dense/kernel"]).max() > 0.1


@hypothesis.settings(max_examples=25, deadline=None)
@hypothesis.given(
    seed=st.integers(0, 2**32 - 1),
    rate=st.floats(1e-3, 10.0),
    factor=st.floats(0.01, 100.0),
)
def test_gradient_descent_on_directions(seed, rate, factor):
    """dv is orthogonal to v, so v only lengthens; and dv(c v) = dv(v) / c."""
    with jax.enable_x64(True):
        generator = np.random.default_rng(seed)
        w, g = ({"kernel": jnp.asarray(generator.normal(size=(5, 3)))} for _ in "wg")
        optimizer = weight_norm(optax.sgd(rate), eps=0)
        state = optimizer.init(w)
        _, after = step(optimizer, w, g, state)
        v, moved = (np.asarray(s.latents.direction["kernel"]) for s in (state, after))
        change = moved - v
        size = np.linalg.norm(v, axis=0) * np.linalg.norm(change, axis=0)
        assert np.all(np.abs(np.sum(v * change, axis=0)) < 1e-12 * (1 + size))
        grown = np.sum(v**2, axis=0) + np.sum(change**2, axis=0)
        np.testing.assert_allclose(np.sum(moved**2, axis=0), grown, rtol=1e-12)

        longer = WeightNormLatents({"kernel": factor * v}, state.latents.scale)
        still, _ = step(
            weight_norm(optax.sgd(0.0), eps=0), w, g, state._replace(latents=longer)
        )
        np.testing.assert_allclose(still["kernel"], w["kernel"], rtol=1e-12)
        _, after = step(optimizer, w, g, state._replace(latents=longer))
        slower = after.latents.direction["kernel"] - factor * v
        np.testing.assert_allclose(
            slower, change / factor, atol=1e-12 * (1 + factor) * (1 + rate)
        )


def test_scale_may_change_its_sign(x64):
    """A step along the weight beyond zero turns g negative, and v stays."""
    w = {"kernel": jnp.array([[3.0], [4.0]])}
    g = {"kernel": jnp.array([[0.6], [0.8]])}
    after, state = step(weight_norm(optax.sgd(7.0), eps=0), w, g)
    np.testing.assert_allclose(state.latents.scale["kernel"], [-2.0])
    np.testing.assert_allclose(state.latents.direction["kernel"], w["kernel"])
    np.testing.assert_allclose(after["kernel"], [[-1.2], [-1.6]])


def test_zero_units_are_finite_and_learn_with_an_epsilon(x64):
    w, g = {"kernel": jnp.zeros((3, 2))}, {"kernel": jnp.ones((3, 2))}
    after, state = step(weight_norm(optax.sgd(1e-6)), w, g)
    # At v = 0 the map to w has derivative one: the first step is that of plain w.
    np.testing.assert_allclose(after["kernel"], -1e-6, rtol=1e-3)
    stuck, state = step(weight_norm(optax.sgd(0.1), eps=0), w, g)
    np.testing.assert_array_equal(stuck["kernel"], 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_plain_leaves_follow_the_inner_optimizer(x64):
    params, grads = draw(0), draw(1)
    optimizer = weight_norm(optax.sgd(0.1), normalized="dense/kernel")
    after, state = step(optimizer, params, grads)
    for path in KINDS:
        is_plain = path != "dense/kernel"
        assert (state.latents.scale[path] is None) == is_plain
        difference = jnp.abs(after[path] - (params[path] - 0.1 * grads[path])).max()
        # A first step at |v| = g differs from a plain one in second order only.
        assert difference < 1e-15 if is_plain else difference > 1e-4


def test_decay_of_scales_shrinks_weights_and_decay_of_directions_does_not(x64):
    w, zero = {"kernel": jnp.ones((3, 2))}, {"kernel": jnp.zeros((3, 2))}

    def after(direction, scale):
        mask = WeightNormLatents(direction=direction, scale=scale)
        inner = optax.chain(optax.add_decayed_weights(0.5, mask), optax.sgd(0.1))
        return step(weight_norm(inner, eps=0), w, zero)

    for direction, scale, size, length in (
        (False, True, 0.95, 1.0),
        (True, False, 1.0, 0.95),
    ):
        moved, state = after(direction, scale)
        np.testing.assert_allclose(moved["kernel"], size)
        np.testing.assert_allclose(state.latents.direction["kernel"], length)


def test_adamp_inside_keeps_directions_from_growing(x64):
    """Under noise Adam lengthens v at every step; AdamP turns it instead."""
    w = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(64, 4)))}
    noise = np.random.default_rng(1).normal(size=(30, 64, 4))

    def growth(inner):
        optimizer = weight_norm(inner)
        with jax.numpy_dtype_promotion("standard"):
            _, state = jax.jit(
                lambda: jax.lax.scan(
                    lambda carry, g: (step(optimizer, *carry[:1], g, carry[1]), None),
                    (w, optimizer.init(w)),
                    {"kernel": jnp.asarray(noise)},
                )[0]
            )()
        length = jnp.linalg.norm(state.latents.direction["kernel"], axis=0)
        return float((length / jnp.linalg.norm(w["kernel"], axis=0)).mean()) - 1

    adam, adamp = growth(optax.adam(0.05)), growth(optimizers.adamp(0.05))
    assert 0 < adamp < 0.7 * adam


def in_layers(kernel):
    return {"blocks": {"0": {"mlp": {"kernel": kernel}}}}


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("other", ["lawn", "target_variance_rescaling", "hyperball"])
def test_two_norm_controllers_are_refused_by_name(other, outside):
    """Whichever is inside: TVR on v would not even change the function."""
    wrap = {
        "lawn": lambda inner: optimizers.lawn(inner, free_steps=1),
        "target_variance_rescaling": optimizers.target_variance_rescaling,
        "hyperball": lambda inner: optimizers.hyperball(
            optax.chain(inner, optax.scale(-1.0)), 0.1
        ),
    }[other]
    layers = (wrap, weight_norm) if outside else (weight_norm, wrap)
    optimizer = layers[0](layers[1](optax.sgd(0.1)))
    first, second = (other, "weight_norm") if outside else ("weight_norm", other)
    with pytest.raises(ValueError, match=rf"{first} wraps {second} .*mlp/kernel"):
        optimizer.init(in_layers(jnp.ones((3, 2))))


def test_other_leaves_may_have_another_controller(x64):
    params = {**in_layers(jnp.ones((3, 2))), "head": {"kernel": jnp.eye(3)}}
    held = optimizers.constrain(
        optax.sgd(0.1), optimizers.fixed_norm(constrained="head")
    )
    optimizer = weight_norm(held, normalized="blocks")
    after, _ = step(optimizer, params, jax.tree.map(jnp.ones_like, params))
    assert jnp.abs(after["head"]["kernel"] - params["head"]["kernel"]).max() > 0.01
    np.testing.assert_allclose(
        jnp.linalg.norm(after["head"]["kernel"]), np.sqrt(3), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"eps": jnp.ones(2)}, "eps must be a scalar"),
        ({"init": "ones"}, "init='ones' is not one of"),
        ({"normalized": "kernle"}, "normalized='kernle' matches no parameter path"),
        ({"rules": [("kernle", 0)]}, "kernle"),
        ({"implementation": "cuda"}, "implementation must be None"),
    ],
)
def test_bad_input_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        weight_norm(optax.sgd(0.1), **arguments).init(in_layers(jnp.ones((3, 2))))


def test_a_kernel_takes_the_steps_of_xla(monkeypatch):
    """Forward and backward, on every kind of leaf whose units lie together."""
    call = pl.pallas_call

    def interpreted(*args, **kwargs):
        return call(*args, **kwargs | {"interpret": True})

    monkeypatch.setattr(pl, "pallas_call", interpreted)
    params, grads = (draw(seed, jnp.float32) for seed in range(2))
    for tree in (params, grads):
        del tree["deconv/kernel"]

    def two_steps(implementation):
        optimizer = weight_norm(
            optax.sgd(0.1), stacked="blocks/", implementation=implementation
        )

        @jax.jit
        def run(params):
            moved, state = step(optimizer, params, grads)
            return step(optimizer, moved, grads, state)[0]

        return run(params)

    assert_close(two_steps("tpu"), two_steps("xla"), atol=2e-6)
