"""A constraint with a kernel moves the weights as update and apply_updates do."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.experimental import pallas as pl

from gnomon.optimizers import (
    FusedTransformation,
    apply_fused,
    lawn,
    target_variance_rescaling,
)

OPTIMIZERS = {
    "lawn": functools.partial(lawn, free_steps=1, view="unit"),
    "lawn, by layers": functools.partial(lawn, free_steps=1),
    "tvr": functools.partial(
        target_variance_rescaling,
        target_std=0.4,
        every=2,
        scale_with_depth=True,
    ),
}


def tree():
    generator = np.random.default_rng(0)
    return {
        "blocks": {
            "0": {
                "kernel": jnp.asarray(generator.normal(size=(8, 4))),
                "bias": jnp.ones(4),
            },
            "1": {"kernel": jnp.asarray(generator.normal(size=(4, 3)))},
        },
        "still": {"kernel": jnp.ones((3, 2))},
    }


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fused_equals_update_and_apply_updates(x64, monkeypatch, name):
    """Free phase, switch and later; a free leaf, and one without a gradient."""
    interpreted = functools.partial(pl.pallas_call, interpret=True)
    monkeypatch.setattr(pl, "pallas_call", interpreted)
    optimizer = OPTIMIZERS[name](optax.sgd(0.3, momentum=0.9), implementation="tpu")
    fused = jax.jit(functools.partial(apply_fused, optimizer))
    params = mine = tree()
    state = ours = optimizer.init(params)
    for number in range(4):
        grads = jax.tree.map(lambda w: jnp.cos(w + number), params)  # noqa: B023
        grads["still"]["kernel"] = None
        mine, ours = fused(grads, ours, mine)
        updates, state = optimizer.update(grads, state, params)
        updates["still"]["kernel"] = jnp.zeros((3, 2))
        params = optax.apply_updates(params, updates)
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-13),
            (mine, ours),
            (params, state),
        )


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_by_default_there_is_nothing_to_fuse(name, no_gpu_kernels):
    assert not isinstance(OPTIMIZERS[name](optax.sgd(0.3)), FusedTransformation)
    with pytest.raises(ValueError, match="does not support"):
        OPTIMIZERS[name](optax.sgd(0.3), implementation="gpu")


def test_a_bias_that_follows_its_kernel_needs_xla():
    optimizer = target_variance_rescaling(
        optax.sgd(0.3), zero_bias=True, implementation="tpu"
    )
    assert not isinstance(optimizer, FusedTransformation)
