"""Norm kernels compute what their definitions say, whatever the shape and dtype."""

import functools
import importlib
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.experimental.pallas import tpu as pltpu

from gnomon.kernels import Gpu, Tpu
from gnomon.kernels.layer_norm import layer_norm
from gnomon.kernels.normalization import reference
from gnomon.kernels.rms_norm import explain, rms_norm
from gnomon.kernels.shapes import ACTIVATIONS, LEAVES
from gnomon.kernels.weight_norm import reference as weight_reference
from gnomon.kernels.weight_norm import weight_norm


class Op(NamedTuple):
    """An operation with a matrix first: its kernels, definition and other inputs."""

    folder: str
    reference: Callable[..., jax.Array]
    others: Callable[[int, int], list[tuple[int, ...]]]
    fold: Callable[[tuple[int, int]], tuple[int, ...]] = lambda shape: shape


OPS = {
    "rms_norm": Op("normalization", reference.normalize, lambda m, n: [(n,)]),
    "layer_norm": Op("normalization", reference.normalize, lambda m, n: [(n,)] * 2),
    "weight_norm_rows": Op(
        "weight_norm",
        lambda v, g, eps: weight_reference.weight_norm(v, g, 2, eps),
        lambda m, n: [(1, m, 1)],
        lambda shape: (1, *shape),
    ),
    "weight_norm_columns": Op(
        "weight_norm",
        lambda v, g, eps: weight_reference.weight_norm(v, g, 1, eps),
        lambda m, n: [(2, 1, m)],
        lambda shape: (2, shape[1], shape[0]),
    ),
}


# Blocks of one tile, so that small arrays take several steps.
SMALL = Tpu(block=16 * 128)


def draw(op: Op, m: int, n: int, dtype: str, seed: int) -> tuple[list, np.ndarray]:
    """Inputs and a cotangent, rows of very different sizes."""
    rng = np.random.default_rng(seed)
    shape = op.fold((m, n))
    sizes = 10.0 ** rng.uniform(-3, 3, op.fold((m, 1)))
    x = rng.normal(size=shape) * sizes
    others = [rng.normal(size=s) for s in op.others(m, n)]
    inputs = [x.astype(jnp.dtype(dtype)), *(o.astype(np.float32) for o in others)]
    return inputs, rng.normal(size=shape).astype(jnp.dtype(dtype))


def error(got: jax.Array, want: jax.Array) -> float:
    """Relative error in the Euclidean norm of each row; the worst row counts."""
    got, want = (np.asarray(a, np.float64) for a in (got, want))
    axis = -1 if want.ndim > 1 and want.shape[-1] > 1 else None
    difference, size = (np.linalg.norm(a, axis=axis) for a in (got - want, want))
    return float(np.max(difference / np.maximum(size, 1e-30)))


def both_passes(function):
    """The function's value and all its cotangents, from its inputs and a cotangent."""

    def run(cotangent, *inputs):
        value, vjp = jax.vjp(function, *inputs)
        return value, vjp(cotangent)

    return run


@pytest.mark.parametrize("name", OPS)
# No shrinking: every new shape is a compilation.
@settings(max_examples=2, deadline=None, phases=[Phase.generate])
@given(
    m=st.integers(1, 60),
    # In shorter rows the cotangents of LayerNorm can cancel to nothing.
    n=st.integers(16, 150),
    dtype=st.sampled_from(["float32", "bfloat16"]),
    seed=st.integers(0, 99),
)
def test_tpu_kernels_match_float64(name, m, n, dtype, seed):
    """Values and every cotangent, against the definition differentiated in float64."""
    op = OPS[name]
    inputs, cotangent = draw(op, m, n, dtype, seed)
    eps = 1e-6
    with jax.enable_x64(True):
        exact = [jnp.asarray(a, jnp.float64) for a in (*inputs, cotangent)]
        definition = functools.partial(op.reference, eps=eps)
        want, want_cotangents = jax.jit(both_passes(definition))(exact[-1], *exact[:-1])
    kernel = importlib.import_module(f"gnomon.kernels.{op.folder}.tpu")
    arrays = [jnp.asarray(a) for a in (*inputs, cotangent)]
    # What this interpreter never wrote reads NaN, so a forgotten block cannot pass.
    got = kernel.forward(*arrays[:-1], jnp.float32(eps), sizes=SMALL, interpret=True)
    cotangents = kernel.backward(*arrays, jnp.float32(eps), sizes=SMALL, interpret=True)
    rounding = 2.0**-8 if dtype == "bfloat16" else 2e-6
    assert got.dtype == arrays[0].dtype == cotangents[0].dtype
    assert error(got, want) < rounding
    # The cotangent of the matrix is a difference, which magnifies rounding.
    assert error(cotangents[0], want_cotangents[0]) < 4 * rounding
    for sum_, want_sum in zip(cotangents[1:], want_cotangents[1:], strict=True):
        assert sum_.dtype == jnp.float32
        assert error(sum_.ravel(), want_sum.ravel()) < 1e-5


@pytest.mark.parametrize("implementation", ["xla", SMALL], ids=["xla", "tpu"])
@pytest.mark.parametrize("op", ["rms_norm", "layer_norm", "weight_norm"])
def test_zero_rows_give_zeros_and_finite_cotangents(op, implementation):
    """Even without eps the root of zero is never divided by."""
    x = jnp.zeros((3, 20)).at[1].set(jnp.arange(20.0))
    functions = {
        "rms_norm": lambda x: rms_norm(
            x, jnp.ones(20), eps=0.0, implementation=implementation
        ),
        "layer_norm": lambda x: layer_norm(
            x, jnp.ones(20), jnp.zeros(20), eps=0.0, implementation=implementation
        ),
        "weight_norm": lambda x: weight_norm(
            x, jnp.ones(3), axis=1, eps=0.0, implementation=implementation
        ),
    }
    with pltpu.force_tpu_interpret_mode():
        y, (dx,) = jax.jit(both_passes(functions[op]))(jnp.ones_like(x), x)
    assert not np.any(y[::2])
    assert np.any(y[1])
    assert np.all(np.isfinite(dx))
    assert not np.any(dx[::2])


def test_gradients_of_the_api_are_those_of_the_reference():
    """Leading axes, scattered units, bf16 inputs and float32 parameters."""
    x = jax.random.normal(jax.random.key(0), (2, 3, 40), jnp.bfloat16)
    scale, bias = jnp.linspace(0.5, 2.0, 40), jnp.linspace(-1.0, 1.0, 40)
    v = jax.random.normal(jax.random.key(1), (3, 4, 5, 6))
    g = jnp.linspace(1.0, 2.0, 24).reshape(4, 6)

    def loss(x, scale, bias, v, g, implementation):
        y = layer_norm(x, scale, bias, implementation=implementation)
        y = rms_norm(y, scale, implementation=implementation)
        w = weight_norm(v, g, axis=(0, 2), implementation=implementation)
        return jnp.sum(jnp.sin(y.astype(jnp.float32))) + jnp.sum(jnp.sin(w))

    arguments = range(5)
    gradient = jax.jit(jax.grad(loss, arguments), static_argnums=5)
    want = gradient(x, scale, bias, v, g, "xla")
    with pltpu.force_tpu_interpret_mode():
        got = gradient(x, scale, bias, v, g, SMALL)
    for ours, theirs, tolerance in zip(
        got, want, [0.02, 0.02, 0.02, 1e-5, 1e-5], strict=True
    ):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        assert error(ours.ravel(), theirs.ravel()) < tolerance


def test_rows_in_blocks_of_128_have_lengths_side_by_side():
    """Three blocks, the last cut, and each row has its own length and cotangent."""
    v, cotangent = jax.random.normal(jax.random.key(0), (2, 300, 128))
    g = jnp.linspace(1.0, 2.0, 300)

    def both(implementation):
        function = functools.partial(weight_norm, axis=1, implementation=implementation)
        w, (dv, dg) = jax.jit(both_passes(function))(cotangent, v, g)
        return w, dv, dg

    with pltpu.force_tpu_interpret_mode():
        got = both(Tpu(block=128 * 128))
    for ours, theirs in zip(got, both("xla"), strict=True):
        assert error(ours, theirs) < 1e-5


def lowered_for_tpu(function, *inputs):
    traced = jax.jit(both_passes(function)).trace(inputs[0], *inputs)
    return traced.lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.parametrize("shape", ACTIVATIONS, ids=lambda shape: shape.name)
def test_row_norms_lower_for_tpu(shape):
    """The real Mosaic lowering accepts forward and backward of every table row."""
    vector = jax.ShapeDtypeStruct(shape.shape[1:], "float32")
    rms = functools.partial(rms_norm, implementation="tpu")
    layer = functools.partial(layer_norm, implementation="tpu")
    for text in (
        lowered_for_tpu(rms, shape.struct, vector),
        lowered_for_tpu(layer, shape.struct, vector, vector),
    ):
        assert text.count("tpu_custom_call") == 2


WEIGHTS = [leaf for leaf in LEAVES if leaf.unit_axis is not None]


@pytest.mark.parametrize("leaf", WEIGHTS, ids=lambda leaf: leaf.name)
def test_weight_norm_lowers_for_tpu(leaf):
    """Units along either axis, from one number to a whole embedding."""
    g = jax.ShapeDtypeStruct((leaf.shape[1 - leaf.unit_axis],), "float32")
    function = functools.partial(weight_norm, axis=leaf.unit_axis, implementation="tpu")
    text = lowered_for_tpu(function, leaf.struct, g)
    assert text.count("tpu_custom_call") == 2


def test_a_kernel_that_is_asked_for_runs_or_refuses_with_a_reason():
    wide = jax.ShapeDtypeStruct((4, 2**15), "float32")
    with pytest.raises(ValueError, match="rows of 32768 are longer than 16384"):
        explain(wide, "tpu")
    with pytest.raises(ValueError, match="float16 is neither float32 nor bfloat16"):
        explain(jax.ShapeDtypeStruct((4, 8), "float16"), "tpu")
    assert explain(wide).implementation == "xla"
    with pytest.raises(ValueError, match=r"scale has shape \(3,\)"):
        rms_norm(jnp.ones((2, 4)), jnp.ones(3))
    with pytest.raises(ValueError, match=r"g has 2 numbers; .* has 3 units"):
        weight_norm(jnp.ones((2, 3)), jnp.ones(2), axis=0)
    with pytest.raises(ValueError, match="axis=2 does not name axes"):
        weight_norm(jnp.ones((2, 3)), jnp.ones(2), axis=2)


# `plgpu.kernel` took its present form in jax 0.11.
if jax.__version_info__[:2] >= (0, 11):

    @pytest.mark.parametrize(
        "shape",
        [s for s in ACTIVATIONS if s.shape[1] % 128 == 0],
        ids=lambda shape: shape.name,
    )
    def test_row_norms_lower_for_cuda(shape):
        """The Mosaic GPU lowering for an H100 accepts forward and backward."""
        from jax.sharding import AbstractDevice, AbstractMesh

        vector = jax.ShapeDtypeStruct(shape.shape[1:], "float32")
        h100 = AbstractDevice("NVIDIA H100 80GB HBM3", 132, "cuda")
        mesh = AbstractMesh((), (), abstract_device=h100)
        for function, inputs in (
            (rms_norm, (shape.struct, vector)),
            (layer_norm, (shape.struct, vector, vector)),
        ):
            kernel = functools.partial(function, implementation="gpu")
            with jax.sharding.use_abstract_mesh(mesh):
                traced = jax.jit(both_passes(kernel)).trace(inputs[0], *inputs)
                text = traced.lower(lowering_platforms=("cuda",)).as_text()
            assert text.count("mosaic_gpu") >= 2

    @pytest.mark.parametrize("op", ["rms_norm", "layer_norm"])
    def test_gpu_kernels_match_float64(op):
        """More rows than blocks, so that the blocks' sums have rows to add."""
        from jax.experimental.pallas import mosaic_gpu as plgpu

        inputs, cotangent = draw(OPS[op], 7, 256, "float32", 0)
        with jax.enable_x64(True):
            exact = [jnp.asarray(a, jnp.float64) for a in (*inputs, cotangent)]
            definition = functools.partial(OPS[op].reference, eps=1e-6)
            want, want_cotangents = jax.jit(both_passes(definition))(
                exact[-1], *exact[:-1]
            )
        kernel = importlib.import_module("gnomon.kernels.normalization.gpu")
        arrays = [jnp.asarray(a) for a in (*inputs, cotangent)]
        how = dict(sizes=Gpu(blocks=3), interpret=plgpu.InterpretGPUParams())
        eps = jnp.float32(1e-6)
        got = kernel.forward(*arrays[:-1], eps, **how)
        cotangents = kernel.backward(*arrays, eps, **how)
        assert error(got, want) < 2e-6
        assert error(cotangents[0], want_cotangents[0]) < 8e-6
        for sum_, want_sum in zip(cotangents[1:], want_cotangents[1:], strict=True):
            assert error(sum_, want_sum) < 1e-5
