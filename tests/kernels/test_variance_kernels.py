"""A step and the rescaling of wide layers: definition, and TPU kernel with its sums."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.kernels import Tpu, variance

# Rounding of a computation in a dtype, with room for a different order of sums.
ROUNDING = {"float32": 2e-6, "bfloat16": 2**-8, "float64": 1e-12}


# Blocks of one tile, so that small layers take several.
SMALL = Tpu(block=16 * 128)


def leaf(shape, dtype="float64", seed=0):
    """(w, u) with a mean of 3 and a deviation of about 1."""
    generator = np.random.default_rng(seed)
    w, u = (generator.normal(size=shape) for _ in range(2))
    return tuple(jnp.asarray(x).astype(dtype) for x in (w + 3, 0.3 * u))


def oracle(w, u, target, ratio=1.2, stack=()):
    """The formula in NumPy's float64."""
    x = np.asarray(w, np.float64) + np.asarray(u, np.float64)
    axes = tuple(axis for axis in range(x.ndim) if axis not in stack)
    mean = x.mean(axis=axes, keepdims=True)
    spread = x.std(axis=axes, ddof=1, keepdims=True)
    return np.where(spread > ratio * target, target * (x - mean) / spread + mean, x)


@pytest.mark.parametrize("implementation", ["xla", SMALL], ids=["xla", "tpu"])
def test_wide_layers_alone_are_rescaled(implementation, x64, interpreted, assert_close):
    """Each stacked layer has a target of its own, and one is narrow enough."""
    arrays = leaf((3, 20, 150))
    target = np.reshape([0.5, 2.0, 0.1], (3, 1, 1))
    kwargs = dict(target=target, ratio=1.5, stack=(0,))
    step = functools.partial(variance.step, implementation=implementation, **kwargs)
    got = np.asarray(jax.jit(step)(*arrays))
    assert_close(got, oracle(*arrays, **kwargs), 1e-12)
    spread = got.std(axis=(1, 2), ddof=1)
    np.testing.assert_allclose(spread[[0, 2]], [0.5, 0.1], rtol=1e-10)
    np.testing.assert_array_equal(got[1], arrays[0][1] + arrays[1][1])


@pytest.mark.parametrize("budget", [0, 2**25], ids=["read_again", "kept_on_chip"])
def test_any_shape_and_dtype(budget, interpreted, assert_close):
    """What a ragged block reads past the edge is NaN, and every number has moved."""
    kernel = Tpu(block=16 * 128, vmem=budget)
    step = jax.jit(functools.partial(variance.step, target=0.02, implementation=kernel))

    # Each example compiles.
    @settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(
        rows=st.integers(2, 60),
        columns=st.integers(2, 300),
        dtype=st.sampled_from(["float32", "bfloat16"]),
        seed=st.integers(0, 100),
    )
    def check(rows, columns, dtype, seed):
        arrays = leaf((rows, columns), dtype, seed)
        moved = step(*arrays)
        assert moved.dtype == dtype
        assert_close(moved, oracle(*arrays, target=0.02), ROUNDING[dtype])

    check()


@pytest.mark.parametrize("implementation", ["xla", "tpu"])
@pytest.mark.parametrize("shape", [(4, 5), ()])
def test_a_constant_layer_has_no_deviation(shape, implementation, interpreted):
    w = jnp.full(shape, 3.0)
    step = functools.partial(variance.step, target=0.5, implementation=implementation)
    np.testing.assert_array_equal(jax.jit(step)(w, -w / 2), w / 2)


def test_rounding_draws_what_the_definition_draws(interpreted):
    """Sums in another order may flip a few of the draws, never by more than a gap."""
    arrays = leaf((3, 11, 140), "bfloat16")

    @jax.jit
    def both(key):
        step = functools.partial(variance.step, *arrays, target=0.02, key=key)
        return step(implementation=SMALL), step(implementation="xla")

    got, want = (np.asarray(w, np.float32) for w in both(jax.random.key(0)))
    assert np.mean(got != want) < 1e-3
    np.testing.assert_allclose(got, want, rtol=2**-7)


@pytest.mark.parametrize("stack", [(), (0,)], ids=["spread", "whole"])
def test_sharded_equals_unsharded(stack, x64, interpreted, assert_close):
    """A layer over all devices, and layers each on one."""
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    arrays = leaf((8, 6, 5))
    sharding = NamedSharding(mesh, P("data"))
    kwargs = dict(target=0.5, stack=stack)
    step = functools.partial(
        variance.step, **kwargs, sharding=sharding, implementation="tpu"
    )
    got = jax.jit(step)(*jax.device_put(arrays, sharding))
    assert got.sharding.is_equivalent_to(sharding, 3)
    assert_close(got, oracle(*arrays, **kwargs), 1e-12)


def test_it_says_what_it_would_do():
    assert variance.explain(platform="tpu").implementation == "xla"
    with pytest.raises(ValueError, match="no arithmetic for float16"):
        variance.explain("float16", implementation="tpu")
