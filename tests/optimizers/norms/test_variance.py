"""Variance control: what TVR rescales and when, and how wide LIR draws."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon import optimizers
from gnomon.optimizers.mechanisms.sets import target_std
from gnomon.optimizers.norms.variance import (
    layer_index_rescaling,
    target_variance_rescaling,
)
from gnomon_contract import Row, Verified, around_adamp, matrices

ROWS = (
    Row(
        "target_variance_rescaling",
        around_adamp(target_variance_rescaling),
        {"learning_rate": 0.05, "target_std": 0.8, "ratio": 1.2, "every": 2.0},
        {"constrained": matrices},
        covers=("target_variance_rescaling",),
    ),
)
GIVEN = {"target_variance_rescaling": dict(target_std=0.1, every=1)}
LAYERS = {
    "target_variance_rescaling": lambda i, **s: target_variance_rescaling(
        i, target_std=0.3, every=2, zero_bias=True, scale_with_depth=True, **s
    ),
    "layer_index_rescaling": lambda params, **s: layer_index_rescaling(
        jax.random.key(1), params, **s
    ),
}
VERIFIED = {"target_variance_rescaling": Verified("B04", "NumPy", 1e-10)}


def std(w):
    return np.std(np.asarray(w, np.float64), ddof=1)


def test_equals_a_numpy_transcription(x64, oracle):
    """TVR(3) on momentum SGD; both outcomes of the threshold occur."""
    rate, momentum, goal, ratio, every = 0.05, 0.9, 0.8, 1.2, 3

    def rule(w, g, memory, t):
        memory["b"] = momentum * memory.get("b", 0.0) + g
        moved = w - rate * memory["b"]
        if w.ndim < 2 or t % every:
            return moved, "free"
        s, mean = np.std(moved, ddof=1), np.mean(moved)
        if s / goal <= ratio:
            return moved, "narrow"
        return (moved - mean) / s * goal + mean, "rescaled"

    optimizer = target_variance_rescaling(
        optax.sgd(rate, momentum=momentum),
        target_std=goal,
        ratio=ratio,
        every=every,
        constrained="kernel|embedding",
        stacked="^blocks/",
    )
    views = oracle.compare(optimizer, rule, steps=60, atol=1e-10)
    counts = {view: views.count(view) for view in ("free", "narrow", "rescaled")}
    assert min(counts.values()) > 5, counts


entries = st.floats(-100, 100, allow_subnormal=False, width=32)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(entries, min_size=6, max_size=6).filter(lambda w: np.std(w) > 1e-2),
    st.floats(0.001, 200.0),
)
def test_rescaling_hits_the_target_keeps_the_mean_and_is_idempotent(rows, target):
    """And a layer at or below the ratio is not touched, not even in its last bit."""
    with jax.enable_x64(True):
        w = {"0": {"kernel": jnp.asarray(rows).reshape(3, 2)}}
        constraint = target_std(target)
        once = constraint.project(w, ())
        before, after = w["0"]["kernel"], once["0"]["kernel"]
        if std(before) <= 1.2 * target * (1 - 1e-12):
            np.testing.assert_array_equal(after, before)
        elif std(before) > 1.2 * target * (1 + 1e-12):
            size = np.abs(before).max()
            np.testing.assert_allclose(
                std(after), target, rtol=1e-12, atol=1e-13 * size
            )
            np.testing.assert_allclose(
                np.mean(after), np.mean(before), rtol=0, atol=1e-14 * size
            )
        twice = constraint.project(once, ())
        np.testing.assert_array_equal(twice["0"]["kernel"], after)


def test_the_threshold_is_strict(x64):
    """[-1.5, 0, 1.5] has deviation 1.5 exactly: not above 1.5 times 1."""
    w = {"0": {"kernel": jnp.array([[-1.5], [0.0], [1.5]])}}
    at, above = (
        target_std(1.0, ratio=r).project(w, ())["0"]["kernel"] for r in (1.5, 1.4999)
    )
    np.testing.assert_array_equal(at, w["0"]["kernel"])
    np.testing.assert_allclose(std(above), 1.0, rtol=1e-15)


def test_it_fires_every_so_many_updates_and_as_the_authors_count_with_start_one():
    params = {"blocks": {"0": {"kernel": 5 * jnp.eye(4)}}}
    grads = jax.tree.map(jnp.zeros_like, params)
    for start, wanted in ((0, {3, 6, 9}), (1, {4, 7, 10})):
        optimizer = target_variance_rescaling(
            optax.sgd(0.1), target_std=0.1, every=3, start=start
        )
        state, fired = optimizer.init(params), set()
        for number in range(1, 12):
            # The weights grow back before each update.
            updates, state = optimizer.update(grads, state, params)
            if np.any(updates["blocks"]["0"]["kernel"] != 0):
                fired.add(number)
                moved = optax.apply_updates(params, updates)
                np.testing.assert_allclose(
                    std(moved["blocks"]["0"]["kernel"]), 0.1, rtol=1e-5
                )
        assert fired == wanted


def stack_and_layers(seed=0):
    """The same three layers as a scanned stack and as layers of their own."""
    generator = np.random.default_rng(seed)
    kernel = jnp.asarray(generator.normal(size=(3, 6, 4)) + 1.0)
    query = jnp.asarray(generator.normal(size=(3, 4, 2, 3)))
    bias = jnp.asarray(generator.normal(size=(3, 4)))
    stack = {"mlp": {"kernel": kernel, "bias": bias}, "query": {"kernel": query}}
    others = {
        "embed": {"embedding": jnp.asarray(generator.normal(size=(5, 4)))},
        "head": {"kernel": jnp.asarray(generator.normal(size=(4, 5)))},
    }
    layers = {str(i): jax.tree.map(lambda x, i=i: x[i], stack) for i in range(3)}
    return {"blocks": stack, **others}, {"blocks": layers, **others}


@pytest.mark.parametrize("scale_with_depth", [False, True])
@pytest.mark.parametrize("zero_bias", [False, True])
def test_scanned_layers_are_rescaled_as_unscanned(x64, scale_with_depth, zero_bias):
    """Each with its own statistics and number; only kernels inside layers are."""
    stack, layers = stack_and_layers()
    # With targets 1, 0.71, 0.58 or 0.9 thrice, some layers are wide and some are not.
    options = dict(
        target_std=0.9,
        ratio=1.1,
        every=1,
        scale_with_depth=scale_with_depth,
        zero_bias=zero_bias,
    )
    results = []
    for params, stacked in ((stack, "^blocks/"), (layers, None)):
        optimizer = target_variance_rescaling(
            optax.sgd(0.0), stacked=stacked, **options
        )
        updates, _ = optimizer.update(params, optimizer.init(params), params)
        results.append(optax.apply_updates(params, updates))
    scanned, unscanned = results
    rescaled = 0
    for i in range(3):
        wanted = unscanned["blocks"][str(i)]
        got = jax.tree.map(lambda x, i=i: x[i], scanned["blocks"])
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), got, wanted
        )
        goal = 0.9 / np.sqrt(i + 1) if scale_with_depth else 0.9
        wide = std(stack["blocks"]["mlp"]["kernel"][i]) > 1.1 * goal
        rescaled += wide
        if wide:
            np.testing.assert_allclose(std(got["mlp"]["kernel"]), goal, rtol=1e-12)
        zeroed = np.all(got["mlp"]["bias"] == 0)
        assert zeroed == (wide and zero_bias)
    assert rescaled > 0
    for name in ("embed", "head"):
        jax.tree.map(np.testing.assert_array_equal, scanned[name], stack[name])


@pytest.fixture
def standard():
    """optax's own optimizers multiply integers by floats."""
    with jax.numpy_dtype_promotion("standard"):
        yield


INNER = {
    "sgd": lambda: optax.sgd(0.3, momentum=0.9),
    "adamp": lambda: optimizers.adamp(0.1, weight_decay=0.1),
    "alig": lambda: optimizers.alig(1.0),
    "sgdp": lambda: optimizers.sgdp(0.3, momentum=0.9),
    "accumulated": lambda: optax.MultiSteps(
        optimizers.adamp(0.1), 2
    ).gradient_transformation(),
    "muon": lambda: optax.contrib.muon(0.2),
}


@pytest.mark.parametrize("inner", INNER)
def test_it_caps_the_spread_after_any_optimizer(standard, inner):
    """A saw-tooth: at the target after each period, and free to grow in between."""
    _, params = stack_and_layers()
    params = jax.tree.map(lambda w: w.astype(jnp.float32), params)
    optimizer = target_variance_rescaling(INNER[inner](), target_std=0.5, every=4)
    state, update = optimizer.init(params), jax.jit(optimizer.update)
    for step in range(1, 13):
        grads = jax.tree.map(lambda w, s=step: jnp.cos(w + s) - w, params)
        updates, state = update(grads, state, params, value=jnp.float32(3.0))
        params = optax.apply_updates(params, updates)
        widths = [
            std(layer[name]["kernel"])
            for layer in params["blocks"].values()
            for name in ("mlp", "query")
        ]
        if step % 4 == 0:
            assert max(widths) <= 1.2 * 0.5 * (1 + 1e-5)
        elif step < 4:
            assert max(widths) > 1.2 * 0.5
    assert std(params["embed"]["embedding"]) > 0.6


def test_bfloat16_statistics_are_taken_in_float32(x64):
    """A wide layer whose bfloat16 sums would be far off ends at the target."""
    w = 10 + 0.5 * jax.random.normal(jax.random.key(0), (64, 64), jnp.float32)
    params = {"0": {"kernel": w.astype(jnp.bfloat16)}}
    optimizer = target_variance_rescaling(optax.sgd(0.0), target_std=0.3, every=1)
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    moved = optax.apply_updates(params, updates)["0"]["kernel"]
    assert moved.dtype == jnp.bfloat16
    # Rounding entries near 10 to steps of 1/16 adds a variance of 1/16^2/12.
    np.testing.assert_allclose(std(moved), np.hypot(0.3, 1 / 16 / 12**0.5), rtol=0.01)
    np.testing.assert_allclose(np.mean(np.float64(moved)), np.mean(w), rtol=1e-3)


def test_a_tree_without_layers_is_refused_with_the_fix():
    optimizer = target_variance_rescaling(optax.sgd(0.1))
    with pytest.raises(ValueError, match="Give layers, stacked"):
        optimizer.init({"dense": {"kernel": jnp.ones((2, 2))}})
    for name in ("target_std", "ratio", "every", "start"):
        with pytest.raises(ValueError, match="must be a scalar"):
            target_variance_rescaling(optax.sgd(0.1), **{name: jnp.ones(2)})


@pytest.mark.parametrize(
    "path", ["blocks/{}/mlp", "layers_{}/mlp", "model/h_{}/attention/dense_0"]
)
def test_layers_are_numbered_by_their_path(x64, path):
    """Flax's two ways to name a layer; the first index of a path counts."""
    params = {}
    for i in (0, 2, 10):
        node = params
        for name in path.format(i).split("/"):
            node = node.setdefault(name, {})
        node["kernel"] = jnp.asarray(np.random.default_rng(i).normal(size=(5, 4)))
    optimizer = target_variance_rescaling(
        optax.sgd(0.0), target_std=0.1, every=1, scale_with_depth=True
    )
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    moved = optax.apply_updates(params, updates)
    for i in (0, 2, 10):
        node = moved
        for name in path.format(i).split("/"):
            node = node[name]
        np.testing.assert_allclose(
            std(node["kernel"]), 0.1 / (i + 1) ** 0.5, rtol=1e-12
        )


def initial(depth=4, size=96):
    layer = {
        "mlp": {"kernel": jnp.ones((size, size)), "bias": jnp.ones(size)},
        "norm": {"scale": jnp.full(size, 3.0)},
        "query": {"kernel": jnp.ones((size, 4, size // 4)), "bias": jnp.ones((4, 8))},
    }
    others = {
        "embed": {"embedding": jnp.ones((128, size))},
        "head": {"kernel": jnp.ones((size, 128))},
    }
    stack = jax.tree.map(lambda x: jnp.stack([x] * depth), layer)
    layers = {str(i): layer for i in range(depth)}
    return {"blocks": stack, **others}, {"blocks": layers, **others}


def test_layer_index_rescaling_draws_the_stated_deviations():
    """Each within four standard errors; biases zero, scales as they were."""
    _, params = initial()
    drawn = layer_index_rescaling(jax.random.key(0), params, std=0.006)

    def check(w, sigma):
        n = w.size
        assert abs(std(w) / sigma - 1) < 4 / np.sqrt(2 * (n - 1))
        assert abs(np.mean(w)) < 4 * sigma / np.sqrt(n)

    for i in range(4):
        block = drawn["blocks"][str(i)]
        check(block["mlp"]["kernel"], 0.006 / np.sqrt(i + 1))
        check(block["query"]["kernel"], 0.006 / np.sqrt(i + 1))
        np.testing.assert_array_equal(block["mlp"]["bias"], 0.0)
        np.testing.assert_array_equal(block["query"]["bias"], 0.0)
        np.testing.assert_array_equal(block["norm"]["scale"], 3.0)
    check(drawn["embed"]["embedding"], 0.006)
    check(drawn["head"]["kernel"], 0.006)
    first, second = (drawn["blocks"][i]["mlp"]["kernel"].ravel() for i in "01")
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / 96


def test_layer_index_rescaling_has_exact_factors(x64):
    """std scales everything; scale_factor divides variances inside the layers."""
    _, params = initial(depth=3, size=32)
    key = jax.random.key(1)
    base, doubled, quarter = (
        layer_index_rescaling(key, params, std=s, scale_factor=k)
        for s, k in ((0.02, 1.0), (0.04, 1.0), (0.02, 4.0))
    )
    kernels = [t["blocks"]["2"]["mlp"]["kernel"] for t in (base, doubled, quarter)]
    np.testing.assert_array_equal(kernels[1], 2 * kernels[0])
    np.testing.assert_array_equal(kernels[2], kernels[0] / 2)
    np.testing.assert_array_equal(quarter["head"]["kernel"], base["head"]["kernel"])
    # Layer 3 undone: with scale_factor 1/3 its deviation is std itself.
    undone = layer_index_rescaling(key, params, scale_factor=1 / 3)["blocks"]["2"]
    np.testing.assert_allclose(
        undone["mlp"]["kernel"], kernels[0] * np.sqrt(3), rtol=1e-14
    )


def test_layer_index_rescaling_is_the_same_scanned_and_unscanned():
    stack, layers = initial(depth=3, size=32)
    key = jax.random.key(2)
    scanned = layer_index_rescaling(key, stack, stacked="^blocks/")
    unscanned = layer_index_rescaling(key, layers)
    for i in range(3):
        jax.tree.map(
            np.testing.assert_array_equal,
            jax.tree.map(lambda x, i=i: x[i], scanned["blocks"]),
            unscanned["blocks"][str(i)],
        )
    np.testing.assert_array_equal(
        scanned["embed"]["embedding"], unscanned["embed"]["embedding"]
    )


def test_layer_index_rescaling_maps_over_keys_and_deviations():
    _, params = initial(depth=2, size=32)
    keys, sigmas = jax.random.split(jax.random.key(3), 2), jnp.array([0.02, 0.006])

    def draw(key, sigma):
        return layer_index_rescaling(key, params, std=sigma)

    batched = jax.jit(jax.vmap(draw))(keys, sigmas)
    wanted = draw(keys[1], sigmas[1])
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a[1], b, rtol=1e-6, atol=1e-9),
        batched,
        wanted,
    )
