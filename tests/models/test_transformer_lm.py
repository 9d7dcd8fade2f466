"""The transformer computes what its formulas say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import pallas as pl

from gnomon.models import TransformerLM, functional, parameter_count
from gnomon.models.attention import rotate

SMALL = {"vocab": 32, "width": 16, "depth": 2, "head_dim": 8}


def tokens(shape, seed=0, vocab=32):
    return np.random.default_rng(seed).integers(0, vocab, shape).astype(np.uint8)


def oracle(params, inputs, head_dim):
    """The forward pass in float64 numpy: one sequence, position and head at a time."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2) + 1e-6) * scale

    def turn(x, t):
        half = head_dim // 2
        phases = np.exp(1j * t * 10_000.0 ** (-np.arange(half) / half))
        z = (x[:half] + 1j * x[half:]) * phases
        return np.concatenate([z.real, z.imag])

    def sequence(row):
        x = p["embed"]["embedding"][row]
        for name in sorted(p["blocks"]):
            block = p["blocks"][name]
            a, m = block["attention"], block["mlp"]
            h = [norm(v, block["attention_norm"]["scale"]) for v in x]
            mixed = np.zeros_like(x)
            for head in range(x.shape[1] // head_dim):
                q, k, v = (
                    [u @ a[n]["kernel"][:, head] for u in h]
                    for n in ("query", "key", "value")
                )
                q, k = ([turn(u, t) for t, u in enumerate(w)] for w in (q, k))
                for t in range(len(x)):
                    scores = np.array([q[t] @ k[s] for s in range(t + 1)])
                    e = np.exp(scores / np.sqrt(head_dim))
                    out = (e / e.sum()) @ np.array(v[: t + 1])
                    mixed[t] += out @ a["out"]["kernel"][head]
            x = x + mixed
            h = np.array([norm(v, block["mlp_norm"]["scale"]) for v in x])
            x = x + np.maximum(h @ m["up"]["kernel"], 0) ** 2 @ m["down"]["kernel"]
        x = np.array([norm(v, p["final_norm"]["scale"]) for v in x])
        return x @ p["embed"]["embedding"].T

    return np.array([sequence(row) for row in inputs])


def test_logits_match_a_scalar_float64_reference(build):
    apply, params, stats = build(TransformerLM, **SMALL)
    inputs = tokens((2, 9))
    logits, _ = apply(params, stats, inputs, train=False)
    assert logits.dtype == jnp.float32
    np.testing.assert_allclose(logits, oracle(params, inputs, 8), atol=2e-5)


def test_float64_model_matches_the_reference_to_double_precision(build, x64):
    wide = {"dtype": jnp.float64, "param_dtype": jnp.float64}
    apply, params, stats = build(TransformerLM, **SMALL, **wide)
    inputs = tokens((1, 6))
    logits, _ = apply(params, stats, inputs, train=False)
    np.testing.assert_allclose(logits, oracle(params, inputs, 8), rtol=1e-10)


@pytest.mark.parametrize("variant", [{}, {"scan": True}, {"qk_norm": True}])
def test_no_position_sees_the_future(build, variant):
    apply, params, stats = build(TransformerLM, **SMALL, **variant)
    inputs = tokens((2, 8))
    for t in (1, 4, 7):
        changed = inputs.copy()
        changed[:, t:] = (changed[:, t:] + 7) % 32
        before, _ = apply(params, stats, inputs, train=False)
        after, _ = apply(params, stats, changed, train=False)
        before, after = np.asarray(before), np.asarray(after)
        np.testing.assert_array_equal(before[:, :t], after[:, :t])
        assert np.all(np.abs(before - after)[:, t].max(-1) > 1e-3)


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(0, 500), distance=st.integers(0, 60), seed=st.integers(0, 99))
def test_rotated_products_depend_on_distance_alone(shift, distance, seed):
    rng = np.random.default_rng(seed)
    q, k = jnp.asarray(rng.normal(size=(2, 1, 1, 16)), jnp.float32)

    def product(offset):
        return jnp.sum(rotate(q, offset=offset + distance) * rotate(k, offset=offset))

    np.testing.assert_allclose(product(shift), product(0), atol=1e-4)


def test_rotation_keeps_norms_and_leaves_position_zero():
    x = np.random.default_rng(0).normal(size=(3, 7, 2, 8)).astype(np.float32)
    y = np.asarray(rotate(jnp.asarray(x)))
    np.testing.assert_array_equal(y[:, 0], x[:, 0])
    norms = (np.linalg.norm(a, axis=-1) for a in (x, y))
    np.testing.assert_allclose(*norms, rtol=1e-6)
    assert np.abs(y - x)[:, 1:].max() > 0.1


def test_without_positions_order_would_not_matter_but_it_does(build):
    apply, params, stats = build(TransformerLM, **SMALL)
    a = np.array([[1, 2, 3, 4]], np.uint8)
    b = np.array([[2, 1, 3, 4]], np.uint8)
    last = [apply(params, stats, x, train=False)[0][:, -1] for x in (a, b)]
    assert np.abs(last[0] - last[1]).max() > 1e-3


@settings(max_examples=15, deadline=None)
@given(
    vocab=st.integers(1, 300),
    heads=st.integers(1, 4),
    head_dim=st.sampled_from([2, 8, 16]),
    depth=st.integers(1, 4),
    ratio=st.integers(1, 5),
    tied=st.booleans(),
    scan=st.booleans(),
)
def test_parameter_count_is_the_closed_formula(
    vocab, heads, head_dim, depth, ratio, tied, scan
):
    width = heads * head_dim
    lm = functional(
        TransformerLM,
        vocab=vocab,
        width=width,
        depth=depth,
        head_dim=head_dim,
        mlp_ratio=ratio,
        tied=tied,
        scan=scan,
    )
    params, stats = jax.eval_shape(lm.init, jax.random.key(0))
    blocks = depth * ((4 + 2 * ratio) * width**2 + 2 * width)
    assert parameter_count(params) == blocks + (2 - tied) * vocab * width + width
    assert stats == {}


def stack(params):
    """An unrolled model's parameters in the scanned model's layout."""
    layers = [params["blocks"][str(i)] for i in range(len(params["blocks"]))]
    stacked = jax.tree.map(lambda *x: np.stack(x), *layers)
    return {**params, "blocks": {"stacked": stacked}}


def test_scanned_layers_equal_unrolled_in_values_and_gradients():
    config = {**SMALL, "depth": 3, "vocab": 8}
    unrolled = functional(TransformerLM, **config)
    scanned = functional(TransformerLM, **config, scan=True)
    key = jax.random.key(3)
    params, _ = jax.device_get(jax.jit(unrolled.init)(key))
    # The same key initializes both alike, so changing `scan` changes no experiment.
    jax.tree.map(
        np.testing.assert_array_equal, stack(params), jax.jit(scanned.init)(key)[0]
    )
    inputs = tokens((2, 8), vocab=8)

    def loss(net):
        def loss(params):
            logits, _ = net.apply(params, {}, inputs, train=True)
            return jnp.mean(jnp.sin(logits)), logits

        return jax.jit(jax.grad(loss, has_aux=True))

    grads, logits = loss(unrolled)(params)
    scanned_grads, scanned_logits = loss(scanned)(stack(params))
    np.testing.assert_allclose(scanned_logits, logits, atol=1e-5)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        scanned_grads,
        stack(grads),
    )


def test_initial_scales_are_the_documented_ones():
    lm = functional(TransformerLM, vocab=512, width=128, depth=4, tied=False)
    params, _ = jax.device_get(jax.jit(lm.init)(jax.random.key(0)))
    block = params["blocks"]["1"]
    attention, mlp = block["attention"], block["mlp"]
    expected = [
        (params["embed"]["embedding"], 128**-0.5),
        (params["head"]["kernel"], 128**-0.5),
        (attention["query"]["kernel"], 128**-0.5),
        (attention["out"]["kernel"], (128 * 8) ** -0.5),
        (mlp["up"]["kernel"], 128**-0.5),
        (mlp["down"]["kernel"], (512 * 8) ** -0.5),
    ]
    # The estimate of a deviation from n >= 16384 normals is off by 0.6 % (one sigma).
    for kernel, deviation in expected:
        assert abs(np.std(kernel) / deviation - 1) < 0.03
        assert abs(np.mean(kernel)) < 0.05 * deviation


@pytest.mark.parametrize("tied", [True, False])
def test_bfloat16_computes_near_float32_and_keeps_float32_parameters(build, tied):
    full, params, stats = build(TransformerLM, **SMALL, tied=tied)
    half, half_params, _ = build(TransformerLM, **SMALL, tied=tied, dtype=jnp.bfloat16)
    jax.tree.map(np.testing.assert_array_equal, params, half_params)
    inputs = tokens((4, 16))
    exact, _ = full(params, stats, inputs, train=True)
    rounded, _ = half(params, stats, inputs, train=True)
    assert rounded.dtype == jnp.float32
    exact, error = np.asarray(exact), np.asarray(rounded) - exact
    error = np.linalg.norm(error) / np.linalg.norm(exact)
    assert 1e-4 < error < 2e-2  # bfloat16 rounds at 4e-3: it is used, and no worse


def test_bfloat16_parameters_stay_bfloat16(build):
    narrow = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    apply, params, stats = build(TransformerLM, **SMALL, **narrow)
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    logits, _ = apply(params, stats, tokens((2, 5)), train=True)
    assert logits.dtype == jnp.float32


def test_tokens_may_be_bytes(build):
    apply, params, stats = build(TransformerLM, **{**SMALL, "vocab": 256})
    inputs = np.array([[0, 127, 128, 255]])
    expected, _ = apply(params, stats, inputs.astype(np.int32), train=False)
    logits, _ = apply(params, stats, inputs.astype(np.uint8), train=False)
    np.testing.assert_array_equal(logits, expected)


@pytest.mark.parametrize("variant", [{}, {"tied": False, "activation": "gelu"}])
def test_memorizes_a_batch_of_random_tokens(fit, cross_entropy, variant):
    lm = functional(TransformerLM, **{**SMALL, "width": 32, **variant})
    params, _ = jax.jit(lm.init)(jax.random.key(0))
    text = jnp.asarray(tokens((2, 13)), jnp.int32)

    def loss(params):
        logits, _ = lm.apply(params, {}, text[:, :-1], train=True)
        return cross_entropy(logits, text[:, 1:])

    losses = fit(loss, params, steps=150, rate=1e-2)
    assert 3.0 < losses[0] < 5.0  # ln 32 = 3.5, and logits of about unit variance
    assert losses[-1] < 0.05


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"width": 48}, r"width: 48 is not a multiple of head_dim=32.*width=32"),
        ({"width": 6, "head_dim": 3}, r"head_dim: 3 is odd.*even"),
        ({"activation": "relu3"}, r"activation: 'relu3' is unknown; did you mean"),
        ({"depth": 0}, r"depth: 0 must be at least 1"),
        ({"vocab": -1}, r"vocab: -1 must be at least 1"),
    ],
)
def test_bad_arguments_are_refused_by_name(kwargs, message):
    with pytest.raises(ValueError, match=message):
        functional(TransformerLM, **kwargs)


def test_norms_of_every_layer_can_be_kernels(build, monkeypatch):
    """The same logits, whatever computes the norms: five of them in this model."""
    call = pl.pallas_call
    options = SMALL | {"depth": 1, "qk_norm": True}
    inputs = tokens((2, 5))
    apply, params, stats = build(TransformerLM, **options)
    want, _ = apply(params, stats, inputs, train=False)
    kernels = functional(TransformerLM, **options, norm_implementation="tpu")

    def logits(*arguments):
        return kernels.apply(*arguments, train=False)[0]

    traced = jax.jit(lambda *arguments: logits(*arguments)).trace(params, stats, inputs)
    text = traced.lower(lowering_platforms=("tpu",)).as_text()
    assert text.count("@tpu_custom_call") == 5

    def interpreted(*args, **kwargs):
        return call(*args, **kwargs | {"interpret": True})

    monkeypatch.setattr(pl, "pallas_call", interpreted)
    got = jax.jit(logits)(params, stats, inputs)
    np.testing.assert_allclose(got, want, atol=2e-6)
