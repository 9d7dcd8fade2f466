"""Adam's step on moments in eight bits: the definition, and the kernel beside it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from gnomon.kernels import Tpu, adam, adam_8bit
from gnomon.kernels.adam_8bit import _leaf
from gnomon.kernels.companding import BLOCK, decode, encode

HYPERS = dict(learning_rate=0.1, count=3, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1)


@functools.partial(jax.jit, static_argnums=(0, 1))
def leaf(shape, dtype, seed=0):
    """(w, g, m, v), the moments coded and of very different magnitudes."""
    keys = jax.random.split(jax.random.key(seed), 4)
    w, g, m, v = (jax.random.normal(key, shape) for key in keys)
    m, v = (jnp.sign(x) * jnp.exp(3 * x) for x in (m, v))
    coded = encode(m, "int8"), encode(jnp.abs(v), "uint8")
    return w.astype(dtype), g.astype(dtype), *coded


def test_the_definition_is_adam_between_decoding_and_coding():
    w, g, m, v = leaf((3, 300), "float32")
    kwargs = dict(**HYPERS, nesterov=True)
    got = jax.jit(functools.partial(adam_8bit.step, stochastic=False, **kwargs))(
        w, g, m, v
    )
    plain = jax.jit(functools.partial(adam.step, **kwargs))(w, g, decode(m), decode(v))
    np.testing.assert_allclose(got.w, plain.w, rtol=1e-6)
    for coded, x, dtype in ((got.m, plain.m, "int8"), (got.v, plain.v, "uint8")):
        wanted = encode(x, dtype)
        np.testing.assert_allclose(coded.scales, wanted.scales, rtol=1e-6)
        apart = np.abs(coded.codes.astype(int) - wanted.codes.astype(int))
        # A number on the edge between two codes may fall to either side.
        assert apart.max() <= 1
        assert apart.mean() < 0.01


CASES = {
    "ragged grid": ((40, 700), "bfloat16"),
    "one row": ((1024,), "float32"),
    "heads": ((5, 4, 96), "float32"),
}


@pytest.mark.parametrize(("shape", "dtype"), CASES.values(), ids=CASES)
def test_the_kernel_is_its_definition(shape, dtype, interpreted):
    """To the code, with the same draws; what lies past an edge is NaN or anything."""
    kernel = Tpu(coded_rows=16, coded_blocks=2)
    arrays = leaf(shape, dtype)
    step = functools.partial(adam_8bit.step, **HYPERS, key=jax.random.key(0))
    want = jax.jit(step)(*arrays)
    got = jax.jit(functools.partial(step, implementation=kernel))(*arrays)
    assert dtype == "float32" or np.mean(got.w != want.w) < 0.01
    rtol = 1e-6 if dtype == "float32" else 2**-7
    np.testing.assert_allclose(
        got.w.astype(jnp.float32), want.w.astype(jnp.float32), rtol=rtol, atol=1e-6
    )
    for a, b in ((got.m, want.m), (got.v, want.v)):
        np.testing.assert_allclose(a.scales, b.scales, rtol=1e-6)
        apart = np.abs(a.codes.astype(int) - b.codes.astype(int))
        assert apart.max() <= 1
        assert apart.mean() < 1e-3
    assert np.any(got.v.codes != arrays[3].codes)


def test_the_parameter_may_be_pulled_by_its_units(interpreted):
    """By its columns or by its rows."""
    arrays = leaf((10, 256), "float32")
    shapes = (1, 256), (10, 1)
    pulls = [jax.random.normal(jax.random.key(9), shape) for shape in shapes]

    @jax.jit
    def steps(arrays, pulls):
        step = functools.partial(adam_8bit.step, *arrays, **HYPERS)
        still = step(pull=jnp.zeros((1, 1))).w
        return still, [step(pull=pull, implementation="tpu").w for pull in pulls]

    still, moved = steps(arrays, pulls)
    rate = HYPERS["learning_rate"]
    for got, pull in zip(moved, pulls, strict=True):
        wanted = np.asarray(still) - rate * np.asarray(pull) * np.asarray(arrays[0])
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


def test_sharded_leaves_lower_for_tpu_where_they_lie(tpu_text):
    """Along leading axes and between blocks; nothing is gathered."""
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    sharding = NamedSharding(mesh, PartitionSpec("data", "model"))
    step = functools.partial(
        adam_8bit.step, **HYPERS, implementation="tpu", sharding=sharding
    )
    arrays = jax.eval_shape(lambda: leaf((64, 1024), "float32"))
    text = tpu_text(step, *arrays)
    assert text.count("@tpu_custom_call") == 1
    assert "all_gather" not in text
    assert "tensor<16x512xi8>" in text


def test_cuts_through_blocks_are_refused():
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)

    def cuts(shape, *spec):
        return _leaf.cuts(shape, NamedSharding(mesh, PartitionSpec(*spec)), BLOCK)

    spec = PartitionSpec("data", None)
    assert cuts((64, 300), "data") == (spec, spec)
    assert cuts((64, 300), None, "model") is None
    assert cuts((64, 512), None, "data") is None
    assert cuts((64, 4, 128), "model", "data") is None
    assert cuts((64, 4, 128), "data", "model") is not None
    assert cuts((64, 4, 128), None, None, "model") is None
    arrays = leaf((64, 300), "float32")
    sharding = NamedSharding(mesh, PartitionSpec(None, "model"))
    step = functools.partial(adam_8bit.step, **HYPERS, sharding=sharding)
    with pytest.raises(ValueError, match="cuts through blocks of 256"):
        step(*arrays, implementation="tpu")


def test_lanes_of_learning_rates_lower_for_tpu(tpu_text):
    lanes = jax.eval_shape(jax.vmap(lambda _: leaf((40, 512), "float32")), jnp.ones(3))

    def step(rate, *arrays):
        hypers = dict(HYPERS, learning_rate=rate)
        return adam_8bit.step(*arrays, **hypers, implementation="tpu")

    rates = jax.ShapeDtypeStruct((3,), "float32")
    assert "@tpu_custom_call" in tpu_text(jax.vmap(step), rates, *lanes)


def test_the_state_is_a_quarter():
    """Of float32 moments, by the bytes of the arrays themselves."""
    _, _, m, v = leaf((64, 1024), "float32")
    nbytes = sum(x.nbytes for x in jax.tree.leaves((m, v)))
    assert nbytes / (64 * 1024) == pytest.approx(2 * (1 + 4 / BLOCK))
