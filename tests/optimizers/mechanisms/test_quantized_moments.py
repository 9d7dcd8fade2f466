"""Moments in eight bits: what they weigh, what they follow, and where they lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gnomon import optimizers
from gnomon.optimizers import (
    adamp,
    adamp_8bit,
    adamw_8bit,
    apply_fused,
    quantize_moments,
    scale_by_adamp,
)
from gnomon_contract import Row, Verified


def quantized_adamp(*, learning_rate, b1, b2, weight_decay):
    """With every leaf coded, in blocks of which a leaf has several."""
    inner = optimizers.adamp(learning_rate, b1=b1, b2=b2, weight_decay=weight_decay)
    return optimizers.quantize_moments(inner, min_size=0, block=8)


ROWS = (
    Row(
        "quantize_moments",
        quantized_adamp,
        {"learning_rate": 0.05, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-5},
        # Their update is that of quantize_moments.
        covers=("adamp_8bit", "adamw_8bit"),
    ),
)
GIVEN = {
    "quantize_moments": dict(min_size=0, block=8),
    "adamp_8bit": dict(min_size=0, block=8),
    "adamw_8bit": dict(min_size=0, block=8),
}
TRAITS = {
    "quantize_moments": {"either sign"},
    "adamp_8bit": {"unsigned"},
    "adamw_8bit": {"unsigned"},
}
VERIFIED = {"adamp_8bit": Verified(""), "adamw_8bit": Verified("")}
LAYERS = {
    "quantize_moments": lambda i, **s: optimizers.quantize_moments(
        i, min_size=7, block=8, **s
    ),
    "adamp_8bit": lambda **s: optimizers.adamp_8bit(0.1, min_size=7, block=8, **s),
    "adamw_8bit": lambda **s: optimizers.adamw_8bit(0.1, min_size=7, block=8, **s),
}

PARAMS = {"kernel": jnp.ones((8, 1024)), "bias": jnp.ones((3,))}


def test_a_parameter_takes_two_bytes_and_small_leaves_their_eight():
    state = jax.eval_shape(quantize_moments(scale_by_adamp()).init, PARAMS)
    nbytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state))
    scales, counts = 2 * 4 * (8 * 1024 // 256 + 1), 2 * 4
    assert nbytes == 2 * 8 * 1024 + 8 * 3 + scales + counts
    assert (nbytes - 8 * 3) / (8 * 1024) == pytest.approx(2.03, abs=5e-3)
    assert state.inner.mu["bias"].dtype == "float32"


@pytest.mark.parametrize("stochastic", [True, False])
def test_an_average_decays_through_its_rounding(stochastic):
    """A thousandth a step is far less than a code: rounded to nearest nothing moves.

    The first number of the block stays, so that the scale cannot decay for the rest.
    """
    optimizer = quantize_moments(
        scale_by_adamp(b2=0.999), min_size=0, stochastic=stochastic
    )
    grads = {"kernel": jnp.zeros((4, 256)).at[:, 0].set(1.0)}

    @jax.jit
    def run(state):
        ones = jnp.ones((4, 256)).astype(jnp.uint8) * jnp.uint8(255)
        moments = state.inner._replace(nu={"kernel": ones})
        scales = state.scales._replace(nu={"kernel": jnp.ones((4, 1))})
        state = state._replace(inner=moments, scales=scales)

        def step(state, _):
            return optimizer.update(grads, state, grads)[1], None

        return jax.lax.scan(step, state, length=1000)[0]

    state = run(optimizer.init(grads))
    nu = (np.asarray(state.inner.nu["kernel"])[:, 1:] / 255) ** 4
    wanted = 0.999**1000 if stochastic else 1.0
    np.testing.assert_allclose(nu.mean(), wanted, rtol=0.03)


def test_rounding_moves_no_weight_far():
    """Gradients of one block over fifteen orders of magnitude.

    Their signs alone change, so no step of Adam itself is longer than one.
    """
    sizes = 10.0 ** -jnp.linspace(0, 15, 256)[None]
    optimizer = quantize_moments(scale_by_adamp(eps=0.0), min_size=0)

    @jax.jit
    def run(state):
        def step(state, key):
            grads = {
                "kernel": sizes * jax.random.rademacher(key, (1, 256), jnp.float32)
            }
            updates, state = optimizer.update(grads, state, grads)
            return state, jnp.abs(updates["kernel"])

        return jax.lax.scan(step, state, jax.random.split(jax.random.key(0), 200))[1]

    largest = run(optimizer.init({"kernel": sizes})).max(axis=0)
    assert largest.max() <= 7
    assert largest[sizes >= 1e-3].max() <= 1.52


def test_an_inner_without_moments_is_refused():
    with pytest.raises(ValueError, match="found no moment"):
        quantize_moments(optax.sgd(0.1)).init(PARAMS)


def test_moments_that_are_coded_are_not_coded_again():
    optimizer = quantize_moments(quantize_moments(adamp(0.1)))
    with pytest.raises(ValueError, match="in eight bits already"):
        optimizer.init(PARAMS)


@pytest.mark.parametrize("spec", [("data",), (None, "data")], ids=["rows", "blocks"])
def test_nothing_is_sent_between_devices(spec):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    params = {"kernel": jax.device_put(PARAMS["kernel"], sharding)}
    # Without units AdamP is elementwise: what is sent would be sent for the codes.
    optimizer = quantize_moments(adamp(0.1, rules=[("", ())]))
    state = optimizer.init(params)
    text = jax.jit(optimizer.update).lower(params, state, params).compile().as_text()
    for collective in ("all-gather", "all-reduce", "all-to-all", "collective-permute"):
        assert collective not in text


def test_the_fused_step_is_the_update():
    """To the code, but for numbers on an edge between two of them."""
    optimizer = adamp_8bit(0.01, weight_decay=0.1, min_size=100)
    params = {**PARAMS, "kernel": jax.random.normal(jax.random.key(0), (6, 512))}
    # Across every unit, so that it is projected; uneven, so that codes differ.
    grads = jax.tree.map(jnp.cos, params)
    w, g = params["kernel"], grads["kernel"]
    along = jnp.sum(g * w, 0, keepdims=True) / jnp.sum(w * w, 0, keepdims=True)
    grads["kernel"] = g - along * w

    @jax.jit
    def both(params):
        state = optimizer.init(params)
        _, state = optimizer.update(grads, state, params)
        updates, updated = optimizer.update(grads, state, params)
        moved, fused = apply_fused(optimizer, grads, state, params)
        return (optax.apply_updates(params, updates), updated), (moved, fused)

    (params, state), (moved, fused) = both(params)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        moved,
        params,
    )
    assert jax.tree.structure(state) == jax.tree.structure(fused)
    for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(fused), strict=True):
        assert a.dtype == b.dtype
        apart = np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))
        limit = 1 if a.dtype in ("int8", "uint8") else 1e-5
        assert apart.max() <= limit
        assert apart.mean() < 1e-2 * limit or limit < 1


def test_bfloat16_parameters_move_on_average_with_a_rounding_key():
    """A step of a quarter of the gap below one, which the nearest would never take."""
    optimizer = adamw_8bit(2.0**-10)
    params = jnp.ones((64, 64), jnp.bfloat16)
    state = optimizer.init(params)

    def mean(**how):
        moved, _ = apply_fused(optimizer, params, state, params, **how)
        return np.asarray(moved, np.float64).mean()

    assert mean() == 1
    sigma = 2.0**-8 * np.sqrt(3 / 16 / params.size)
    moved = mean(rounding_key=jax.random.key(0))
    assert abs(moved - (1 - 2.0**-10)) < 5 * sigma


@pytest.mark.parametrize("make", [adamw_8bit, adamp_8bit])
def test_a_coded_leaf_is_one_launch(make):
    optimizer = make(0.01, implementation="tpu")
    step = jax.jit(functools.partial(apply_fused, optimizer))
    state = jax.eval_shape(optimizer.init, PARAMS)
    lowered = step.trace(PARAMS, state, PARAMS).lower(lowering_platforms=("tpu",))
    # The kernel, and the bias beside it.
    assert lowered.as_text().count("@tpu_custom_call") == 2
