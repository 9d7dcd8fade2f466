"""Whole optimizers by a kernel: XLA takes the leaves that it does not, and agrees."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers
from gnomon.kernels import adam_8bit
from gnomon.kernels.engine.choice import GPU_NEEDS_JAX
from gnomon.optimizers import apply_fused

# What each optimizer needs besides an implementation.
ARGUMENTS = {
    "hyperball": (optax.trace(0.9), 0.1),
    "target_std": (0.1,),
    "lawn": (optax.sgd(0.1, 0.9),),
    "target_variance_rescaling": (optax.sgd(0.1, 0.9),),
    "weight_norm": (optax.sgd(0.1, 0.9),),
}
OPTIONS = {
    "lawn": dict(free_steps=0),
    "target_variance_rescaling": dict(target_std=0.1, every=1),
    "adamp_8bit": dict(min_size=32, stochastic=False),
    "adamw_8bit": dict(min_size=32, stochastic=False),
}
CONSTRAINTS = ("fixed_norm", "target_std")


def takes_implementation():
    """Every public function that is asked how its kernels run."""
    functions = inspect.getmembers(optimizers, inspect.isfunction)
    return [
        name
        for name, function in functions
        if "implementation" in inspect.signature(function).parameters
    ]


NAMES = takes_implementation()


def build(name, implementation):
    function = getattr(optimizers, name)
    how = dict(OPTIONS.get(name, {}), implementation=implementation)
    if name in CONSTRAINTS:
        constraint = function(*ARGUMENTS.get(name, ()), **how)
        return optimizers.constrain(optax.sgd(0.1, 0.9), constraint)
    return function(*ARGUMENTS.get(name, (0.1,)), **how)


def leaves(seed):
    """Leaves that each kernel takes, some that only XLA does, and the smallest."""
    rng = np.random.default_rng(seed)
    shapes = {
        "blocks/0/kernel": (16, 8),
        "blocks/1/kernel": (9, 1),
        "blocks/2/kernel": (1, 128),
        "blocks/3/kernel": (5, 43),
        "blocks/4/kernel": (1, 1),
        "blocks/0/bias": (8,),
        "blocks/1/bias": (0,),
        "gain": (),
        "blocks/5/kernel": (6, 3),
    }
    arrays = {k: jnp.asarray(rng.normal(size=v), "float32") for k, v in shapes.items()}
    return arrays | {"blocks/5/kernel": arrays["blocks/5/kernel"].astype("float16")}


@pytest.mark.parametrize("name", NAMES)
def test_no_leaf_stops_an_optimizer(name, interpreted):
    """A step with a NaN, an infinity and a huge number in one gradient each."""
    params, grads = leaves(0), leaves(1)
    grads["blocks/0/kernel"] = grads["blocks/0/kernel"].at[2, 3].set(jnp.nan)
    grads["blocks/3/kernel"] = grads["blocks/3/kernel"].at[1, 1].set(jnp.inf)
    grads["blocks/2/kernel"] = grads["blocks/2/kernel"].at[0, 5].set(1e25)
    grads["blocks/1/kernel"] = 0 * grads["blocks/1/kernel"]

    def run(implementation):
        optimizer = build(name, implementation)

        @jax.jit
        def step(params, grads):
            return apply_fused(optimizer, grads, optimizer.init(params), params)[0]

        return step(params, grads)

    want = run("xla")
    assert not interpreted
    got = run("tpu")
    assert interpreted
    for path, b in want.items():
        # An update that is rounded before it is added is off by more.
        half = b.dtype == jnp.float16
        bound = dict(rtol=2e-2, atol=1e-3) if half else dict(rtol=1e-4, atol=1e-5)
        a, b = (np.asarray(x, np.float64) for x in (got[path], b))
        np.testing.assert_allclose(a, b, **bound, err_msg=path)


def test_the_names_are_found():
    assert {"adamp", "fadam", "hyperball", "weight_norm", *CONSTRAINTS} <= set(NAMES)


def test_eight_bits_are_explained_by_shape():
    """A grid step of long blocks does not fit; one leaf's are refused, others not."""
    asked = dict(block=2048, implementation="tpu")
    assert adam_8bit.explain(shape=(64, 100), **asked).implementation == "tpu"
    with pytest.raises(ValueError, match="blocks of 2048 take 92 MiB of its 48 MiB"):
        adam_8bit.explain(shape=(1024, 16384), **asked)
    fallen = adam_8bit.explain(shape=(1024, 16384), **asked, fall_back=True)
    assert fallen.implementation == "xla"
    assert "92 MiB" in fallen.reason


@pytest.mark.parametrize("name", NAMES)
def test_wrappers_are_built_for_a_gpu(name, monkeypatch):
    """What they ask first, a small leaf, is one that the kernel takes."""
    monkeypatch.setattr(jax, "__version_info__", GPU_NEEDS_JAX)
    build(name, "gpu").init(leaves(0))
