"""Adam's step on moments in eight bits on a GPU: lowered for CUDA, run on a simulator.

Mosaic GPU is used as it is since jax 0.11; before, the operation says so.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.kernels import Gpu, adam_8bit
from gnomon.kernels.adam_8bit import api
from gnomon.kernels.adam_8bit._pull import fold_pull
from gnomon.kernels.companding import BLOCK, decode, encode
from gnomon.kernels.engine.choice import GPU_NEEDS_JAX

HYPERS = dict(learning_rate=0.1, count=3, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.1)


def test_older_jax_falls_back_and_says_why(monkeypatch):
    """Asked for by name it is an error; by platform, even if it were faster, XLA."""
    monkeypatch.setattr(jax, "__version_info__", (0, 10, 2))
    faster = {"adam_8bit": frozenset({"gpu"})}
    monkeypatch.setattr("gnomon.kernels.engine.choice.FASTER_THAN_XLA", faster)
    with pytest.raises(ValueError, match=r"GPU kernels need jax >= 0\.11"):
        adam_8bit.explain(implementation="gpu")
    choice = adam_8bit.explain(platform="gpu")
    assert choice.implementation == "xla"
    assert "GPU kernels need jax >= 0.11" in choice.reason


def test_leaves_that_the_gpu_kernel_does_not_take():
    """With the reason; the TPU's takes those whose shape alone is the trouble."""

    def refusal(kernel="gpu", dtype="float32", block=BLOCK, shape=None):
        return api.refusal(kernel, dtype, block=block, shape=shape)

    assert refusal(shape=(2048, 1000)) is None
    assert refusal(dtype="float64") == "it has no arithmetic for float64"
    assert "blocks of 200 are not multiples of the 128" in refusal(block=200)
    assert refusal(block=1024) == "blocks of 1024 are longer than 512"
    counted = "it counts in 32 bits, too few for 2147483648 numbers"
    assert refusal(shape=(2**16, 2**15)) == counted
    assert refusal(shape=(3, 257)) == "the last block is a single number"
    assert refusal("tpu", block=1024, shape=(3, 1025)) is None


@pytest.mark.parametrize("shape", [(2, 4, 512), (3, 5, 300)])
def test_coefficients_are_those_of_the_array(shape):
    """Whichever axes they vary along, however few of them the kernel reads."""
    rows = math.prod(shape[:2])
    for varies in np.ndindex(2, 2, 2):
        small = [n if many else 1 for n, many in zip(shape, varies, strict=True)]
        pull = np.arange(math.prod(small), dtype=np.float32).reshape(small)
        full = np.broadcast_to(pull, shape).reshape(rows, -1)
        found = fold_pull(jnp.asarray(pull), shape, 2, 4)
        # Four rows at a time have one line, or one each.
        assert found.rows in (0, 1, rows) or found.rows % 4 == 0
        if shape[2] % BLOCK == 0 and found.rows < 2:
            found, full = found.split(shape[2] // BLOCK, BLOCK), full.reshape(-1, BLOCK)
        got = np.asarray(found.array)
        if found.rows == 0:
            got = np.broadcast_to(got[:, None], full.shape)
        np.testing.assert_array_equal(np.repeat(got, max(found.rows, 1), 0), full)


@functools.partial(jax.jit, static_argnums=(0, 1))
def leaf(shape, dtype="float32"):
    """(w, g, m, v), the moments coded, of very different magnitudes.

    The first block never saw a gradient, and the gradient's last number diverged.
    """
    w, g, m, v = (
        jax.random.normal(key, shape) for key in jax.random.split(jax.random.key(0), 4)
    )
    m, v = (jnp.sign(x) * jnp.exp(2 * x) for x in (m, v))
    if w.size > BLOCK:
        rest = jnp.arange(w.size).reshape(shape) >= BLOCK
        g, m, v = (x * rest.astype(x.dtype) for x in (g, m, v))
        g = g.at[(-1,) * g.ndim].set(jnp.nan)
    coded = encode(m, "int8"), encode(jnp.abs(v), "uint8")
    return w.astype(dtype), g.astype(dtype), *coded


if jax.__version_info__[:2] >= GPU_NEEDS_JAX:
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    def kernels_in(text):
        return text.count("custom_call @mosaic_gpu")

    def structs(shape, dtype="float32"):
        return jax.eval_shape(lambda: leaf(shape, dtype))

    def test_lanes_of_learning_rates_lower_for_cuda(cuda_text):
        """A sweep maps the step over learning rates and parameters at once."""
        lanes = jax.eval_shape(jax.vmap(lambda _: leaf((4, 512))), jnp.ones(3))

        def step(rate, *arrays):
            hypers = dict(HYPERS, learning_rate=rate)
            return adam_8bit.step(*arrays, **hypers, implementation="gpu")

        rates = jax.ShapeDtypeStruct((3,), "float32")
        assert kernels_in(cuda_text(jax.vmap(step), rates, *lanes)) == 1

    def test_sharded_leaves_lower_for_cuda_where_they_lie(cuda_text):
        """Along leading axes and between blocks; nothing is gathered."""
        mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Auto,) * 2)
        sharding = NamedSharding(mesh, PartitionSpec("data", "model"))
        step = functools.partial(
            adam_8bit.step, **HYPERS, implementation="gpu", sharding=sharding
        )
        text = cuda_text(step, *structs((64, 1024)))
        assert kernels_in(text) == 1
        assert "all_gather" not in text
        assert "tensor<16x512xi8>" in text

    def moved_exactly(w, g, m, v, pull):
        """The parameter of the next step, in double precision."""
        w, g, m, v, pull = (
            np.asarray(x, np.float64) for x in (w, g, decode(m), decode(v), pull)
        )
        rate, t, b1, b2, eps, _ = HYPERS.values()
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        p = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        return w - rate * (p + pull * w)

    @pytest.mark.parametrize(
        ("shape", "dtype", "pulled"),
        [((5, 512), "float32", (5, 1)), ((3, 556), "bfloat16", (3, 556))],
        ids=["whole blocks", "ragged blocks"],
    )
    def test_the_kernel_is_its_definition(shape, dtype, pulled, simulated):
        """To the code, with the same draws; four blocks at a time and those left."""
        arrays = leaf(shape, dtype)
        pull = jnp.linspace(-1.0, 1.0, math.prod(pulled)).reshape(pulled)
        key = jax.random.key(0)
        step = functools.partial(adam_8bit.step, **HYPERS, pull=pull, key=key)
        want = jax.jit(step)(*arrays)
        got = jax.jit(functools.partial(step, implementation=Gpu(blocks=2)))(*arrays)
        exact = moved_exactly(*arrays, pull)
        assert dtype == "float32" or np.mean(got.w != want.w) < 0.01
        bound = (2e-6 if dtype == "float32" else 2**-7) * np.nanmax(np.abs(exact))
        np.testing.assert_allclose(np.asarray(got.w, np.float64), exact, 0, bound)
        for a, b in ((got.m, want.m), (got.v, want.v)):
            np.testing.assert_allclose(a.scales, b.scales, rtol=1e-6)
            # What a block that diverged is coded to is no number.
            numbers = np.isfinite(decode(b))
            np.testing.assert_array_equal(np.isfinite(decode(a)), numbers)
            apart = np.abs(a.codes.astype(int) - b.codes.astype(int))[numbers]
            assert apart.max() <= 1
            assert apart.mean() < 1e-3
