"""GPU kernels of optimizer steps and weight norm: lowered for CUDA, run on a simulator.

Mosaic GPU is used as it is since jax 0.11; before, the operations say so.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.kernels import Gpu, adam, adamp
from gnomon.kernels.engine.choice import GPU_NEEDS_JAX
from gnomon.kernels.shapes import LEAVES, RAGGED
from gnomon.kernels.weight_norm import explain as explain_weight_norm
from gnomon.kernels.weight_norm import weight_norm

HYPERS = dict(learning_rate=0.1, count=3, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1)

# Few blocks, so that each has several rows to go over.
FEW = Gpu(blocks=2, fewest=4)

WEIGHTS = [leaf for leaf in LEAVES if leaf.unit_axis is not None]
# Columns of 8192, and rows that 128 threads do not divide or registers not hold.
REFUSED = {
    "1.3b/mlp_out",
    "resnet50/stem",
    "resnet50/conv3x3_narrow",
    "resnet50/conv3x3_wide",
}


def explanations(platform=None, implementation=None):
    asked = dict(implementation=implementation)
    return {
        "adam": lambda: adam.explain(platform=platform, **asked),
        "adamp": lambda: adamp.explain(platform=platform, **asked),
        "weight_norm": lambda: explain_weight_norm(
            jax.ShapeDtypeStruct((256, 128), "float32"), 1, **asked
        ),
    }


@pytest.mark.parametrize("op", ["adam", "adamp", "weight_norm"])
def test_older_jax_falls_back_and_says_why(op, monkeypatch):
    """Asked for by name it is an error; by platform, even if it were faster, XLA."""
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    faster = {op: frozenset({"gpu"})}
    monkeypatch.setattr("gnomon.kernels.engine.choice.FASTER_THAN_XLA", faster)
    with pytest.raises(ValueError, match=r"GPU kernels need jax >= 0\.11"):
        explanations(implementation="gpu")[op]()
    choice = explanations(platform="gpu")[op]()
    assert choice.implementation == "xla"
    assert "GPU kernels need jax >= 0.11" in choice.reason


def test_leaves_that_no_gpu_kernel_takes(monkeypatch):
    """A step takes any shape in two dtypes; weight norm also asks for whole tiles."""
    monkeypatch.setattr(jax, "__version_info__", GPU_NEEDS_JAX)
    with pytest.raises(ValueError, match="no arithmetic for float64"):
        adam.explain("float64", implementation="gpu")
    reasons = {
        (128, 24, 0): None,
        (128, 20, 0): "128 x 20 does not divide by 64 x 8",
        (100, 24, 0): "100 x 24 does not divide by 64 x 8",
        (8192, 64, 0): "columns of 8192 are longer than 3200",
        (4, 256, 1): None,
        (4, 300, 1): "rows of 300 do not divide by the 128 threads",
        (4, 8192, 1): "rows of 8192 are longer than 4096",
    }
    for (rows, columns, axis), reason in reasons.items():
        v = jax.ShapeDtypeStruct((rows, columns), "float32")
        if reason is None:
            assert explain_weight_norm(v, axis, "gpu").implementation == "gpu"
        else:
            with pytest.raises(ValueError, match=reason):
                explain_weight_norm(v, axis, "gpu")


def state(shape, dtype="float32", across=None, seed=0):
    """(w, g, m, v), of which the gradient is across every unit, the layer, or neither.

    `across` is the axis inside a unit, "layer" or None.
    """
    rng = np.random.default_rng(seed)
    w, g, m, v = (rng.normal(size=shape) for _ in range(4))
    if across == "layer":
        signs = 1 - 2 * (np.arange(len(w)) % 2)
        g, across = g + 3 * w * signs[:, None], None
    elif across is None:
        return cast(w, g + w, m, v, dtype)
    products, squares = (np.sum(x * w, across, keepdims=True) for x in (g, w))
    return cast(w, g - w * products / squares, m, v, dtype)


def cast(w, g, m, v, dtype):
    dtypes = (dtype, dtype, dtype, "float32")
    return [
        jnp.asarray(x).astype(d) for x, d in zip((w, g, m, v**2), dtypes, strict=True)
    ]


def with_cotangents(function):
    """The function's value and all its cotangents, from a cotangent and its inputs."""

    def run(cotangent, *inputs):
        value, vjp = jax.vjp(function, *inputs)
        return value, vjp(cotangent)

    return run


if jax.__version_info__[:2] >= GPU_NEEDS_JAX:

    def kernels_in(text):
        return text.count("custom_call @mosaic_gpu")

    @pytest.mark.parametrize("leaf", WEIGHTS, ids=lambda leaf: leaf.name)
    def test_weight_norm_lowers_for_cuda(leaf, cuda_text):
        """Forward and backward, or a refusal."""
        axis = leaf.unit_axis
        function = functools.partial(weight_norm, axis=axis, implementation="gpu")
        g = jax.ShapeDtypeStruct((leaf.shape[1 - axis],), "float32")
        run = with_cotangents(function)
        if leaf in RAGGED or leaf.name in REFUSED:
            with pytest.raises(ValueError, match="gpu kernel of weight_norm"):
                explain_weight_norm(leaf.struct, axis, "gpu")
        else:
            assert kernels_in(cuda_text(run, leaf.struct, leaf.struct, g)) == 2

    def test_lanes_of_hyperparameters_lower_for_cuda(cuda_text):
        """A sweep maps the step over learning rates and parameters at once."""
        lanes = [jax.ShapeDtypeStruct((4, 40, 256), "float32")] * 4

        def step(rate, *arrays):
            hypers = dict(HYPERS, learning_rate=rate)
            return adamp.step(*arrays, **hypers, implementation="gpu")

        rates = jax.ShapeDtypeStruct((4,), "float32")
        assert kernels_in(cuda_text(jax.vmap(step), rates, *lanes)) == 3

    def agree(step, cases):
        """The kernel against the definition in float64."""
        kernel = jax.jit(functools.partial(step, implementation=FEW))
        definition = jax.jit(functools.partial(step, implementation="xla"))
        for arrays in cases:
            got = kernel(*arrays)
            with jax.enable_x64(True):
                exact = [jnp.asarray(np.asarray(x, np.float64)) for x in arrays]
                want = definition(*exact)
            for ours, theirs in zip(got, want, strict=True):
                assert ours.dtype == jnp.float32
                error = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs))
                assert error.max() <= 2e-6 * np.abs(theirs).max()
            assert np.all(np.asarray(got.v) != np.asarray(arrays[3]))

    def test_adam_moves_every_number_once(simulated):
        """A whole block, one of a number a thread, and one number left over."""
        step = functools.partial(adam.step, **HYPERS, nesterov=True)
        agree(step, [state((1, 1024 + 128 + 1))])

    @pytest.mark.parametrize(
        ("shape", "axis", "across"),
        [
            ((4, 256), 1, [1, "layer"]),  # rows in registers
            ((9, 128), 0, [0, None]),  # columns, summed by blocks of five rows
            ((64, 16), 0, [0, "layer"]),  # columns in shared memory, summed by XLA
            ((3, 43), 1, [1]),  # rows that no block holds whole
        ],
        ids=["rows", "columns", "strips", "ragged"],
    )
    def test_adamp_projects_units_and_layers(shape, axis, across, simulated):
        """Where the gradient is across them, and not where it is across neither."""
        cases = [state(shape, across=outcome) for outcome in across]
        agree(functools.partial(adamp.step, **HYPERS, reduce=(axis,)), cases)

    def test_adamp_keeps_stacked_layers_apart(simulated):
        """One layer projects its columns and the other does not."""
        layers = [state((8, 16), across=0), state((8, 16))]
        arrays = [jnp.stack(pair) for pair in zip(*layers, strict=True)]
        step = functools.partial(adamp.step, **HYPERS, reduce=(1,), stack=(0,))
        agree(step, [arrays])

    def test_stochastic_rounding_draws_what_the_definition_draws(simulated):
        w, g, *_ = state((129,), "bfloat16")
        zero = jnp.zeros(w.shape)
        step = functools.partial(adam.step, **HYPERS, key=jax.random.key(0))

        def moved(implementation):
            run = jax.jit(functools.partial(step, implementation=implementation))
            return np.asarray(run(w, g, zero, zero).w, np.float32)

        np.testing.assert_array_equal(moved(FEW), moved("xla"))

    @pytest.mark.parametrize(
        ("shape", "axis", "dtype"),
        [((3, 256), 1, "float32"), ((1, 128, 24), 1, "bfloat16")],
        ids=["rows", "columns"],
    )
    def test_weight_norm_matches_float64(shape, axis, dtype, simulated):
        v, cotangent, *_ = state(shape, dtype)
        g = jnp.linspace(0.5, 2.0, v.size // v.shape[axis])

        def run(implementation, *inputs):
            function = functools.partial(
                weight_norm, axis=axis, implementation=implementation
            )
            value, cotangents = jax.jit(with_cotangents(function))(*inputs)
            return [np.asarray(x, np.float64) for x in (value, *cotangents)]

        got = run(FEW, cotangent, v, g)
        with jax.enable_x64(True):
            exact = [jnp.asarray(np.asarray(x, np.float64)) for x in (cotangent, v, g)]
            want = run("xla", *exact)
        # The cotangent of `g` is float32 whatever `v` is.
        rounding = 2e-6 if dtype == "float32" else 2**-8
        for ours, theirs, bound in zip(
            got, want, (rounding, 4 * rounding, 1e-5), strict=True
        ):
            assert np.abs(ours - theirs).max() <= bound * np.abs(theirs).max()
