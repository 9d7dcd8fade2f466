"""A step of fixed norm: its definition, and a TPU kernel that sums on the way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.kernels import Tpu, fixed_norm

# Rounding of a computation in a dtype, with room for a different order of sums.
ROUNDING = {"float32": 2e-6, "bfloat16": 2**-8, "float64": 1e-12}


# Blocks of one tile, so that small leaves take several.
SMALL = Tpu(block=16 * 128)


def leaf(shape, axes, dtype="float64", seed=0):
    """(w, u, norm), norms that are not those of w."""
    generator = np.random.default_rng(seed)
    w, u = (generator.normal(size=shape) for _ in range(2))
    norm = generator.uniform(1, 2, np.sum(w, axis=axes, keepdims=True).shape)
    u = 0.3 * u + 0.1 * w
    return (*(jnp.asarray(x).astype(dtype) for x in (w, u)), jnp.asarray(norm))


def oracle(w, u, norm, axes, rate=1.0, angle=None, tangent=False):
    """The formulas in NumPy's float64."""
    w, u, norm = (np.asarray(x, np.float64) for x in (w, u, norm))

    def dot(x, y):
        return np.sum(x * y, axis=axes, keepdims=True)

    v = rate * u
    if angle is not None:
        v = np.where(norm > 0, angle * norm * u / np.sqrt(dot(u, u)), v)
    if tangent:  # of what has a norm to keep
        v = np.where(norm > 0, v - w * dot(w, v) / dot(w, w), v)
    return (w + v) * np.where(norm > 0, norm / np.sqrt(dot(w + v, w + v)), 1)


STEPS = {
    "lawn": dict(rate=-0.5, tangent=True),
    "hyperball": dict(rate=-0.1, angle=-0.2),
}


@pytest.mark.parametrize("implementation", ["xla", SMALL], ids=["xla", "tpu"])
@pytest.mark.parametrize("kwargs", STEPS.values(), ids=STEPS)
def test_every_step_is_its_formula(
    kwargs, implementation, x64, interpreted, assert_close
):
    """Layers of several ragged blocks, one of which has norm zero and is free."""
    w, u, norm = leaf((2, 20, 150), (1, 2))
    norm = norm.at[1].set(0)
    step = functools.partial(
        fixed_norm.step, stack=(0,), implementation=implementation, **kwargs
    )
    assert_close(jax.jit(step)(w, u, norm), oracle(w, u, norm, (1, 2), **kwargs), 1e-12)


def test_any_shape_and_dtype(interpreted, assert_close):
    """By layer, column and row; what a ragged block reads past the edge is NaN."""

    # Each example compiles.
    @settings(max_examples=4, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(
        rows=st.integers(1, 60),
        columns=st.integers(1, 300),
        axes=st.sampled_from([(0, 1), (0,), (1,)]),
        dtype=st.sampled_from(["float32", "bfloat16"]),
        seed=st.integers(0, 100),
    )
    def check(rows, columns, axes, dtype, seed):
        arrays = leaf((rows, columns), axes, dtype, seed)
        step = functools.partial(fixed_norm.step, reduce=axes, implementation=SMALL)
        moved = jax.jit(step)(*arrays)
        assert moved.dtype == dtype
        assert_close(moved, oracle(*arrays, axes), ROUNDING[dtype])

    check()


def test_rows_in_blocks_of_128(interpreted, x64, assert_close):
    """Their norms lie side by side, those of a block in one tile, and the last cut."""
    arrays = leaf((300, 128), (1,))
    kernel = Tpu(block=128 * 128)
    step = functools.partial(fixed_norm.step, reduce=(1,), implementation=kernel)
    assert_close(jax.jit(step)(*arrays), oracle(*arrays, (1,)), 1e-12)


def test_units_that_no_block_holds(x64, interpreted, assert_close):
    """XLA sums them first and the kernel moves them."""
    arrays = leaf((40, 30), (0,))
    step = functools.partial(
        fixed_norm.step, angle=0.1, reduce=(0,), implementation=Tpu(vmem=0)
    )
    assert_close(jax.jit(step)(*arrays), oracle(*arrays, (0,), angle=0.1), 1e-12)


@pytest.mark.parametrize("vmem", [2**25, 0], ids=["held", "summed before"])
def test_layers_that_are_nearly_annihilated(vmem, x64, interpreted, assert_close):
    """One of two layers, of several blocks each, is left a thousandth of its norm."""
    kernel = Tpu(block=16 * 128, vmem=vmem)
    w, u, norm = leaf((2, 20, 150), (1, 2))
    u = u.at[1].set(-w[1])
    norm = norm.at[1].set(jnp.linalg.norm(w[1]))
    kwargs = dict(angle=0.999)
    step = functools.partial(
        fixed_norm.step, stack=(0,), implementation=kernel, **kwargs
    )
    moved = jax.jit(step)(w, u, norm)
    assert_close(moved, oracle(w, u, norm, (1, 2), **kwargs), 1e-12)
    lengths = np.linalg.norm(moved, axis=(1, 2), keepdims=True)
    np.testing.assert_allclose(lengths, norm, rtol=1e-13)


@pytest.mark.parametrize("implementation", ["xla", "tpu"])
def test_what_has_no_direction_stays_finite(implementation, interpreted):
    """A zero weight, a zero update, both, and an update that takes the weight away."""
    w = jnp.array([[0.0, 1.0], [3.0, 4.0], [0.0, 0.0], [3.0, 4.0]])
    u = jnp.array([[3.0, 4.0], [0.0, 0.0], [0.0, 0.0], [-3.0, -4.0]])
    w = w.at[0].set(0)
    step = functools.partial(
        fixed_norm.step, reduce=(1,), implementation=implementation
    )
    moved = jax.jit(step)(w, u, jnp.full((4, 1), 5.0))
    np.testing.assert_allclose(moved, [[3, 4], [3, 4], [0, 0], [0, 0]], rtol=1e-6)


@pytest.mark.parametrize("axes", [(0, 1), (0,)], ids=["layer", "columns"])
def test_sharded_equals_unsharded(axes, x64, interpreted, assert_close):
    """A layer, and units, spread over four devices."""
    mesh = jax.make_mesh(
        (4, 2), ("data", "model"), axis_types=(jax.sharding.AxisType.Auto,) * 2
    )
    w, u, norm = leaf((8, 16), axes)
    sharding = NamedSharding(mesh, P("data", "model"))
    step = functools.partial(
        fixed_norm.step, tangent=True, reduce=axes, implementation="tpu"
    )
    got = jax.jit(functools.partial(step, sharding=sharding))(
        *jax.device_put((w, u), sharding), norm
    )
    assert got.sharding.is_equivalent_to(sharding, 2)
    assert_close(got, oracle(w, u, norm, axes, tangent=True), 1e-12)


def test_it_says_what_it_would_do():
    assert fixed_norm.explain(platform="tpu").implementation == "xla"
    with pytest.raises(ValueError, match="no arithmetic for float16"):
        fixed_norm.explain("float16", implementation="tpu")
    with pytest.raises(ValueError, match=r"norm has shape \(3,\); .* asks for \(1,\)"):
        fixed_norm.step(jnp.ones(3), jnp.ones(3), jnp.ones(3))
