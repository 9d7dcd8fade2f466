"""FAdam's step on one leaf: its definition, and a TPU kernel that sums on the way."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.kernels import Tpu, fadam

HYPERS = dict(
    learning_rate=0.1, count=3, b1=0.9, b2=0.99, eps=0.1, weight_decay=0.2, clip=0.7
)
DTYPES = {
    "float32": ("float32",) * 4,
    "bfloat16": ("bfloat16", "bfloat16", "bfloat16", "float32"),
}
# Rounding of a computation in a dtype, with room for a different order of sums.
ROUNDING = {"float32": 2e-6, "bfloat16": 2**-8, "float64": 1e-12}


# Blocks of one tile, so that small layers take several.
SMALL = Tpu(block=16 * 128)


def leaf(shape, dtypes=("float64",) * 4, seed=0):
    """(w, g, m, root), the gradient a tenth of the weight and not centered."""
    generator = np.random.default_rng(seed)
    w, g, m, root = (generator.normal(size=shape) for _ in range(4))
    arrays = (w, 0.1 * g + 0.05, m, abs(root))
    return tuple(jnp.asarray(x).astype(d) for x, d in zip(arrays, dtypes, strict=True))


def oracle(w, g, m, root, p=0.5, decays=True, stack=(), **flags):
    """The formulas in NumPy's float64."""
    w, g, m, root = (np.asarray(x, np.float64) for x in (w, g, m, root))
    h = HYPERS
    axes = tuple(axis for axis in range(w.ndim) if axis not in stack)

    def rms(x):
        return np.sqrt(np.mean(x * x, axis=axes, keepdims=True))

    def clipped(x):
        if flags.get("clip_rule") == "scale":
            return x * h["clip"] / np.maximum(1, rms(x))
        return x / np.maximum(1, rms(x) / h["clip"])

    t = h["count"]
    b2 = h["b2"] * (1 - h["b2"] ** (t - 1)) / (1 - h["b2"] ** t)
    fisher = b2 * root**2 + (1 - b2) * g * g
    bound = np.maximum if flags.get("eps_rule") == "max" else np.minimum
    eps = h["eps"] * bound(1, rms(g))
    D = fisher**p + (eps ** (2 * p) if flags.get("eps_to_2p", True) else eps)
    m = h["b1"] * m + (1 - h["b1"]) * clipped(g / D)
    d = m + (h["weight_decay"] * clipped(w / D) if decays else 0)
    return w - h["learning_rate"] * d, m, np.sqrt(fisher)


VARIANTS = {
    "stacked_p1": dict(stack=(0,), decays=False, p=1.0),
    "port": dict(eps_rule="max", eps_to_2p=False, clip_rule="scale", p=0.7),
}


@pytest.mark.parametrize("implementation", ["xla", SMALL], ids=["xla", "tpu"])
@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_is_its_formula(
    variant, implementation, x64, interpreted, assert_close
):
    """Three walks over six ragged blocks; two layers that are not to be mixed."""
    arrays = leaf((2, 37, 150))
    step = functools.partial(
        fadam.step, **HYPERS, **variant, implementation=implementation
    )
    for got, want in zip(
        jax.jit(step)(*arrays), oracle(*arrays, **variant), strict=True
    ):
        assert_close(got, want, 1e-12)


@pytest.mark.parametrize("budget", [0, 2**25], ids=["read_again", "kept_on_chip"])
def test_any_shape_and_dtype(budget, interpreted, assert_close):
    """What a ragged block reads past the edge is NaN, and every number has moved."""
    kernel = Tpu(block=16 * 128, vmem=budget)
    step = jax.jit(functools.partial(fadam.step, **HYPERS, implementation=kernel))

    # Each example compiles.
    @settings(max_examples=2, deadline=None, derandomize=True, phases=[Phase.generate])
    @given(
        rows=st.integers(1, 60),
        columns=st.integers(1, 300),
        dtypes=st.sampled_from(list(DTYPES.values())),
        seed=st.integers(0, 100),
    )
    def check(rows, columns, dtypes, seed):
        arrays = leaf((rows, columns), dtypes, seed)
        moved = step(*arrays)
        for got, want in zip(moved, oracle(*arrays), strict=True):
            assert_close(got, want, ROUNDING[got.dtype.name])
        assert np.all(np.asarray(moved.root) != np.asarray(arrays[3]))

    check()


def test_a_leaf_without_gradient_does_not_move(interpreted):
    """Its denominator is zero, and the step is not."""
    w, zero = jnp.ones((20, 30)), jnp.zeros((20, 30))
    step = functools.partial(fadam.step, **HYPERS, implementation="tpu")
    moved = jax.jit(step)(w, zero, zero, zero)
    np.testing.assert_array_equal(moved.w, w)
    assert not np.any(moved.root)


@pytest.mark.parametrize(
    ("spec", "stack"),
    [
        (P("data", "model"), ()),
        (P("data", None, "model"), (0,)),
    ],
    ids=["rows_and_columns", "layers_and_columns"],
)
def test_sharded_equals_unsharded(spec, stack, x64, interpreted, assert_close):
    """Layers whole on a device, and layers spread over several."""
    axes = (jax.sharding.AxisType.Auto,) * 2
    mesh = jax.make_mesh((2, 4), ("data", "model"), axis_types=axes)
    arrays = leaf((4, 16, 8) if stack else (8, 16))
    sharding = NamedSharding(mesh, spec)
    step = functools.partial(fadam.step, **HYPERS, stack=stack, implementation="tpu")
    got = jax.jit(functools.partial(step, sharding=sharding))(
        *jax.device_put(arrays, sharding)
    )
    assert got.w.sharding.is_equivalent_to(sharding, got.w.ndim)
    for a, b in zip(got, oracle(*arrays, stack=stack), strict=True):
        assert_close(a, b, 1e-12)


def test_lanes_of_hyperparameters_lower_for_tpu(tpu_text):
    """A sweep maps the step over learning rates and parameters at once."""
    lanes = [jax.ShapeDtypeStruct((4, 400, 1024), "float32")] * 4

    def step(rate, *arrays):
        hypers = dict(HYPERS, learning_rate=rate)
        return fadam.step(*arrays, **hypers, implementation="tpu")

    rates = jax.ShapeDtypeStruct((4,), "float32")
    assert "@tpu_custom_call" in tpu_text(jax.vmap(step), rates, *lanes)


def test_it_says_what_it_would_do():
    for platform in ("cpu", "gpu", "tpu"):
        assert fadam.explain(platform=platform).implementation == "xla"
    assert fadam.explain(implementation="tpu").implementation == "tpu"
    with pytest.raises(ValueError, match="no arithmetic for float16"):
        fadam.explain("float16", implementation="tpu")
