"""Arrays in eight bits: the bound of the error, its mean, and where blocks lie."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.kernels import companding
from gnomon.kernels.companding import (
    BLOCK,
    LEVELS,
    Coded,
    bytes_per_number,
    dither,
    folded,
    noise,
)

DTYPES = ("int8", "uint8")

encode = jax.jit(companding.encode, static_argnums=1)
decode = jax.jit(companding.decode)


@jax.jit
def round_trips(x, share):
    """Of one block, by each dtype; of magnitudes where there is no sign."""
    signed, unsigned = encode(x, "int8", share), encode(jnp.abs(x), "uint8", share)
    return decode(signed), decode(unsigned)


@given(
    seed=st.integers(0, 2**32 - 1),
    decades=st.floats(0, 12),
    center=st.floats(-6, 6),
    share=st.integers(0, 2**16 - 1).map(lambda n: np.float32(n / 2**16)),
)
@settings(max_examples=60, deadline=None)
def test_the_error_is_within_its_bound(seed, decades, center, share):
    """Over twelve orders of magnitude in one block, whichever neighbor is taken."""
    generator = np.random.default_rng(seed)
    magnitudes = 10 ** generator.uniform(center - decades, center, BLOCK)
    x = (magnitudes * generator.choice([-1, 0, 1], BLOCK)).astype(np.float32)
    x[0] = np.float32(10**center)
    scale = np.abs(x).max().astype(np.float64)
    for exact, got, dtype in zip(
        (x, np.abs(x)), round_trips(x, share), DTYPES, strict=True
    ):
        got, levels = np.asarray(got, np.float64), LEVELS[dtype]
        relative = np.abs(exact) / scale
        bound = 4 * scale * (relative**0.25 + 1 / levels) ** 3 / levels
        assert np.all(np.abs(got - exact) <= 1.001 * bound)
        assert np.all(got[exact == 0] == 0)
        assert np.all(got * exact >= 0)
        assert np.abs(got).max() == scale
        if dtype == "uint8":
            assert np.all(got[exact > 0] > 0)


@pytest.mark.parametrize("dtype", DTYPES)
def test_rounding_is_right_on_average(dtype):
    """Over all noise; without a sign, above the first code."""
    shares = jnp.arange(2**12).astype(jnp.float32) / 2**12
    x = jnp.array([1.0, 0.7, 0.05, 3e-4, 2e-7])
    each = jax.vmap(lambda share: decode(encode(x, dtype, share)))(shares)
    gap = np.ptp(np.asarray(each), axis=0)
    mean = np.asarray(each, np.float64).mean(axis=0)
    assert np.all(np.abs(mean - x) <= 1e-6 * np.asarray(x) + gap / 2**11)
    assert np.all(gap[1:] > 0)


def test_what_a_code_stands_for_keeps_its_code():
    """So a moment that is not updated stays as it is, however often it is coded."""
    codes = jnp.arange(-127, 128).astype(jnp.int8)
    again = encode(decode(Coded(codes, jnp.array([3.0]))), "int8")
    np.testing.assert_array_equal(again.codes, codes)
    codes = jnp.arange(256).astype(jnp.uint8)
    again = encode(decode(Coded(codes, jnp.array([3.0]))), "uint8")
    np.testing.assert_array_equal(again.codes, codes)


SHAPES = [(), (5,), (0, 3), (3, 300), (2, 3, 100), (300, 2), (2, 3, 256), (2, 513)]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "x".join(map(str, s)) or "()")
def test_blocks_are_those_of_a_plain_loop(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    coded = encode(jnp.asarray(x), "int8")
    assert coded.codes.shape == shape
    lead, inner = folded(shape)
    assert coded.scales.shape[:-1] == lead
    assert lead == shape[: len(lead)]
    rows = x.reshape(-1, inner) if x.size else []
    largest = [
        max(map(abs, row[i : i + BLOCK]))
        for row in rows
        for i in range(0, inner, BLOCK)
    ]
    np.testing.assert_array_equal(np.ravel(coded.scales), largest)
    assert bytes_per_number(shape) * x.size == x.size + 4 * len(largest)


def test_blocks_do_not_see_each_other():
    x = jnp.concatenate([jnp.full(BLOCK, 1e-6), jnp.ones(44)])
    np.testing.assert_array_equal(decode(encode(x, "int8")), x)


def test_what_is_not_finite_stays_so():
    """A diverged run must be seen to have diverged."""
    x = jnp.ones((3, BLOCK)).at[0, 0].set(jnp.nan).at[1, 0].set(jnp.inf)
    finite = np.isfinite(decode(encode(x, "uint8")))
    assert not finite[:2].any()
    assert finite[2].all()


def test_noise_is_uniform_and_its_halves_are_independent():
    """Also of itself one step later, at the same place."""
    now, later = (noise(dither(seed, (1 << 14,))) for seed in (1, 2))
    samples = np.stack([*now, *later]).astype(np.float64)
    assert samples.min() >= 0
    assert samples.max() < 1
    np.testing.assert_allclose(samples.mean(axis=1), 0.5, atol=0.01)
    np.testing.assert_allclose(np.corrcoef(samples), np.eye(4), atol=0.03)
