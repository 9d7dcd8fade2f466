"""A scanned model is trained as an unscanned one, by every optimizer's config line."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.experiments.configs.optimizers import OPTIMIZERS
from gnomon.experiments.trial.optimizer import make_optimizer
from gnomon.models import TransformerLM, functional
from gnomon.optimizers import apply_fused
from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import unstack

SMALL = dict(vocab=8, width=8, depth=2, head_dim=4, tied=False, mlp_ratio=2)
TOKENS = jnp.arange(20).reshape(4, 5) % 8


@functools.cache
def model(scan):
    net = functional(
        TransformerLM, **SMALL, scan=scan, dtype="float64", param_dtype="float64"
    )

    def loss(params):
        logits, _ = net.apply(params, {}, TOKENS[:, :-1], train=True)
        labels = optax.softmax_cross_entropy_with_integer_labels
        return jnp.mean(labels(logits, TOKENS[:, 1:]))

    params, _ = net.init(jax.random.key(0))
    return params, loss, jax.jit(jax.value_and_grad(loss))


def train(optimizer, scan, steps=3):
    params, loss, gradient = model(scan)

    def step(params, state, value, grads):
        extra = dict(value=value, grad=grads, value_fn=loss, obj_fn=loss)
        return apply_fused(optimizer, grads, state, params, **extra)

    step = jax.jit(step, compiler_options={"xla_backend_optimization_level": 0})
    state = optimizer.init(params)
    for _ in range(steps):
        params, state = step(params, state, *gradient(params))
    return unstack(params)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_config_line(name, x64):
    config = {
        "optimizer": dict(OPTIMIZERS[name]),
        "schedule": dict(name="gnomon.experiments.schedules.constant"),
    }
    # Their starts and periods come in these steps too.
    for late in ("free_steps", "every"):
        if late in config["optimizer"]:
            config["optimizer"][late] = 1.0
    if "min_size" in config["optimizer"]:
        config["optimizer"]["min_size"] = 100
    with jax.numpy_dtype_promotion("standard"):  # optax: a float to an int32 count
        optimizer = make_optimizer(config, {"steps": 3})
        wanted, found = train(optimizer, False), train(optimizer, True)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    start = unstack(model(False)[0])
    for (path, a), b, before in zip(
        jax.tree_util.tree_leaves_with_path(wanted),
        jax.tree.leaves(found),
        jax.tree.leaves(start),
        strict=True,
    ):
        moved = np.linalg.norm(a - before)
        assert moved > 0
        apart = np.linalg.norm(a - b) / moved
        # Eight-bit codes are float32's, and a rounding apart can be a code apart.
        assert apart < (1e-2 if "8bit" in name else 1e-6), path_string(path)
