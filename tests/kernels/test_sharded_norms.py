"""Row norms of sharded arrays: ``jax.shard_map`` around a kernel changes nothing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec as P

from gnomon.kernels.layer_norm import layer_norm
from gnomon.kernels.rms_norm import rms_norm
from gnomon.kernels.weight_norm import weight_norm

VECTOR, ROWS = P(), P("data", None)
OPS = {
    "rms_norm": (rms_norm, (VECTOR,), ((24,),)),
    "layer_norm": (layer_norm, (VECTOR, VECTOR), ((24,), (24,))),
    "weight_norm": (functools.partial(weight_norm, axis=1), (ROWS,), ((16, 1),)),
}


@pytest.fixture
def interpreted(monkeypatch):
    call = pl.pallas_call

    def on_cpu(*args, **kwargs):
        return call(*args, **kwargs | {"interpret": True})

    monkeypatch.setattr(pl, "pallas_call", on_cpu)


@pytest.mark.parametrize("name", OPS)
def test_sharded_equals_unsharded(name, interpreted):
    """Values and cotangents; those of a vector are summed over the devices."""
    function, specs, shapes = OPS[name]
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    keys = jax.random.split(jax.random.key(0), 4)
    inputs = [
        jax.random.normal(key, shape)
        for key, shape in zip(keys, ((16, 24), *shapes), strict=False)
    ]
    sharded = jax.shard_map(
        functools.partial(function, implementation="tpu"),
        mesh=mesh,
        in_specs=(ROWS, *specs),
        out_specs=ROWS,
        check_vma=False,
    )
    plain = functools.partial(function, implementation="xla")

    def value_and_cotangents(f):
        def run(*inputs):
            value, pull_back = jax.vjp(f, *inputs)
            return value, pull_back(jnp.cos(value))

        return jax.jit(run)(*inputs)

    want = value_and_cotangents(plain)
    got = value_and_cotangents(sharded)
    jax.tree.map(
        functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5), got, want
    )
