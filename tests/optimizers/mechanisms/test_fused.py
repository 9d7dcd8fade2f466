"""The fused entry point: the values and the state of update and apply_updates."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import pallas as pl
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.optimizers import FusedTransformation, adamp, apply_fused


@pytest.fixture
def interpreted(monkeypatch):
    monkeypatch.setattr(
        pl, "pallas_call", functools.partial(pl.pallas_call, interpret=True)
    )


SETTINGS = dict(
    weight_decay=optax.linear_schedule(0.1, 0.0, 10),
    weight_decay_mask=lambda params: jax.tree.map(lambda w: w.ndim > 1, params),
    stacked="^blocks/",
)


def trees(dtype):
    """Parameters, and gradients across the units or not; one leaf has none."""
    shapes = {
        "blocks": {"kernel": (2, 5, 4)},
        "embedding": (6, 3),
        "bias": (3,),
        "scale": (),
    }
    generator = np.random.default_rng(0)
    params, noise = (
        jax.tree.map(
            lambda shape: jnp.asarray(generator.normal(size=shape)).astype(dtype),
            shapes,
            is_leaf=lambda x: isinstance(x, tuple),
        )
        for _ in range(2)
    )
    across = noise | {
        "blocks": {
            "kernel": across_units(
                noise["blocks"]["kernel"], params["blocks"]["kernel"]
            )
        }
    }
    along = jax.tree.map(jnp.add, noise, params)
    return params, [grads | {"bias": None} for grads in (across, along, noise)]


def across_units(g, w):
    dot, square = (jnp.sum(x * w, axis=1, keepdims=True) for x in (g, w))
    return g - w * dot / square


def unfused(optimizer, grads, state, params):
    updates, state = optimizer.update(grads, state, params)
    updates = jax.tree.map(
        lambda u, w: jnp.zeros_like(w) if u is None else u,
        updates,
        params,
        is_leaf=lambda x: x is None,
    )
    return optax.apply_updates(params, updates), state


@pytest.mark.parametrize("implementation", [None, "xla", "tpu"])
def test_equals_update_and_apply_updates(implementation, x64, interpreted):
    """Stacked layers, a mask, schedules and a leaf without gradient included."""
    optimizer = adamp(
        optax.linear_schedule(0.1, 0.0, 10), implementation=implementation, **SETTINGS
    )
    params, gradients = trees("float64")
    ours = theirs = params, optimizer.init(params)
    fused = jax.jit(functools.partial(apply_fused, optimizer))
    reference = jax.jit(functools.partial(unfused, optimizer))
    for grads in gradients:
        ours = fused(grads, ours[1], ours[0])
        theirs = reference(grads, theirs[1], theirs[0])
        assert jax.tree.structure(ours) == jax.tree.structure(theirs)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-13),
            ours,
            theirs,
        )


def test_any_optimizer_can_be_applied():
    """One without apply takes its update; one without extra args is not shown any."""
    w = jnp.array([1.0, 2.0])
    optimizer = optax.sgd(0.5)
    params, _ = apply_fused(optimizer, w, optimizer.init(w), w, value=w.sum())
    np.testing.assert_array_equal(params, 0.5 * w)
    with pytest.raises(ValueError, match="apply_fused needs the current parameters"):
        apply_fused(optimizer, w, optimizer.init(w), None)


def test_to_optax_it_is_a_transform_like_any_other():
    optimizer = adamp(0.1)
    assert isinstance(optimizer, FusedTransformation)
    assert optax.with_extra_args_support(optimizer) is optimizer
    init, update = optimizer
    assert (init, update) == (optimizer.init, optimizer.update)
    assert not isinstance(optax.chain(optimizer), FusedTransformation)


def test_what_cannot_run_is_refused_when_built(no_gpu_kernels):
    with pytest.raises(ValueError, match="implementation must be None"):
        adamp(0.1, implementation="cuda")
    with pytest.raises(ValueError, match="gpu kernel of adamp does not support"):
        adamp(0.1, implementation="gpu")


@pytest.mark.parametrize("spec", [P("data", "model"), P(None, ("data", "model"))])
def test_sharded_equals_unsharded(spec, x64, interpreted):
    """Units whole on a device, units cut over devices, and units spread over all."""
    mesh = jax.make_mesh(
        (2, 4), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    optimizer = adamp(0.1, weight_decay=0.1, implementation="tpu")
    generator = np.random.default_rng(1)
    w, noise = (jnp.asarray(generator.normal(size=(8, 16))) for _ in range(2))
    params = {"kernel": w, "embedding": w}
    square, dot = jnp.sum(w * w, 0), jnp.sum(noise * w, 0)
    grads = {"kernel": noise - w * (dot / square)[None], "embedding": noise}
    state = optimizer.init(params)
    step = functools.partial(apply_fused, optimizer)
    want = jax.jit(step)(grads, state, params)
    sharding = NamedSharding(mesh, spec)
    sharded = jax.device_put(params, sharding)
    got = jax.jit(functools.partial(step, shardings=sharding))(
        jax.device_put(grads, sharding), optimizer.init(sharded), sharded
    )
    assert got[0]["kernel"].sharding.is_equivalent_to(sharding, 2)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-15), got, want
    )


def test_bfloat16_rounds_stochastically_with_a_key():
    """Steps far below the gap of bfloat16 near one move the mean, given a key alone."""
    params = {"kernel": jnp.ones((64, 64), jnp.bfloat16)}
    optimizer = adamp(1e-4)
    step = jax.jit(functools.partial(apply_fused, optimizer))
    state = optimizer.init(params)
    still, _ = step(params, state, params)
    moved, _ = step(params, state, params, rounding_key=jax.random.key(0))
    means = [np.asarray(tree["kernel"], np.float64).mean() for tree in (still, moved)]
    assert means[0] == 1
    assert 1 - 2e-4 < means[1] < 1 - 0.5e-4
