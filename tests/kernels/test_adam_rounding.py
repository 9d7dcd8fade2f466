"""Stochastic rounding: between neighbors, right on average, the same everywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.kernels import Tpu, adam, adam_8bit
from gnomon.kernels.companding import encode
from gnomon.kernels.engine.rounding import random_bits, seeds_from, stochastic_round
from gnomon.kernels.engine.shards import on_shards

WORDS = random_bits(
    *seeds_from(jax.random.key(0)).astype(jnp.uint32),
    jnp.arange(1 << 16, dtype=jnp.uint32),
)


def test_words_are_uniform():
    """Each bit is set half the time, and neighbors agree in half of their bits."""
    words = np.asarray(WORDS)
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    flips = ((words[1:] ^ words[:-1])[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    sigma = 0.5 / np.sqrt(len(words))
    assert np.abs(bits.mean(0) - 0.5).max() < 5 * sigma
    assert np.abs(flips.mean(0) - 0.5).max() < 5 * sigma


def test_seeds_give_unrelated_words():
    other = random_bits(
        *seeds_from(jax.random.key(1)).astype(jnp.uint32),
        jnp.arange(1 << 16, dtype=jnp.uint32),
    )
    same = np.asarray(jax.lax.population_count(WORDS ^ other)).mean() / 32
    assert abs(same - 0.5) < 5 * 0.5 / np.sqrt(32 * len(WORDS))


@settings(deadline=None)
@given(st.floats(-(2.0**100), 2.0**100, width=32), st.integers(0, 2**32 - 1))
def test_rounds_to_a_neighbor(x, word):
    rounded = np.float64(stochastic_round(jnp.float32(x), jnp.uint32(word)))
    toward_zero = np.asarray(x, np.float32).view(np.uint32) & np.uint32(0xFFFF0000)
    away = toward_zero + np.uint32(1 << 16)
    neighbors = [np.float64(n.view(np.float32)) for n in (toward_zero, away)]
    assert rounded == x if neighbors[0] == x else rounded in neighbors


def test_is_right_on_average():
    x = jnp.float32(1 + 2**-10)  # an eighth of the way from 1 to 1 + 2**-7
    mean = np.asarray(
        stochastic_round(jnp.full(WORDS.shape, x), WORDS), np.float64
    ).mean()
    sigma = 2**-7 * np.sqrt(1 / 8 * 7 / 8 / len(WORDS))
    assert abs(mean - float(x)) < 5 * sigma


def test_leaves_what_is_not_finite():
    x = jnp.array([jnp.inf, -jnp.inf, jnp.nan])
    word = jnp.full(3, 0xFFFFFFFF, jnp.uint32)
    np.testing.assert_array_equal(
        np.asarray(stochastic_round(x, word), np.float32), np.asarray(x)
    )


def test_small_steps_are_not_lost():
    """Steps of a fortieth of a gap: nearest stays put, stochastic moves on average."""
    one = jnp.ones((128, 256), jnp.bfloat16)
    zero = jnp.zeros(one.shape)
    rate = 1e-4

    @jax.jit
    def step(key):
        return adam.step(one, one, zero, zero, learning_rate=rate, count=1, key=key)

    assert np.all(np.asarray(step(None).w, np.float32) == 1)
    mean = np.asarray(step(jax.random.key(0)).w, np.float64).mean()
    gap = 2**-8  # below one
    sigma = gap * np.sqrt(rate / gap / one.size)
    assert abs(mean - (1 - rate)) < 5 * sigma


@pytest.mark.parametrize("shape", [(140, 30), (130, 2, 9)], ids=["matrix", "folded"])
def test_a_kernel_draws_what_the_definition_draws(shape, interpreted):
    """By a number's place in the leaf, also where a TPU stores the leaf by columns."""
    kernel = Tpu(block=16 * 128)
    keys = jax.random.split(jax.random.key(1), 2)
    w, g = (jax.random.normal(key, shape, jnp.bfloat16) for key in keys)
    zero = jnp.zeros(shape)

    def step(implementation):
        return jax.jit(
            lambda *arrays: adam.step(
                *arrays,
                learning_rate=0.01,
                count=1,
                key=jax.random.key(0),
                implementation=implementation,
            )
        )(w, g, zero, zero)

    np.testing.assert_array_equal(
        np.asarray(step(kernel).w, np.float32), np.asarray(step("xla").w, np.float32)
    )


@functools.cache
def mesh():
    return jax.make_mesh((8,), ("x",), axis_types=(jax.sharding.AxisType.Auto,))


def drawn_words(arrays, units, numbers, seeds):
    """Words in place of a step: what `on_shards` gives a kernel to draw from."""
    first, second = seeds.astype(jnp.uint32)
    index = jnp.arange(arrays["w"].size, dtype=jnp.uint32)
    return random_bits(first, second, index).reshape(arrays["w"].shape)


def words_of_shards(key):
    lies = jax.sharding.NamedSharding(mesh(), jax.P("x"))
    arrays = {"w": jnp.zeros((8 * 400,))}
    seeds = seeds_from(key)
    return on_shards(drawn_words, arrays, {}, (), seeds, reduce=(), sharding=lies)


def test_shards_draw_apart():
    """The count that is rounded up varies as that of independent draws.

    Over keys, of 3200 numbers on eight devices: 28.3, and 80 of draws in eight copies.
    """
    keys = jax.random.split(jax.random.key(0), 400)
    words = np.asarray(jax.jit(jax.vmap(words_of_shards))(keys))
    up = (words & 0xFFFF) < 0x8000
    assert up.sum(1).std() == pytest.approx(np.sqrt(3200 / 4), rel=0.15)
    shards = np.sort(words.reshape(400, 8, 400))
    assert not (shards[:, :1] == shards[:, 1:]).all(-1).any()


def test_shards_of_eight_bits_draw_apart(interpreted):
    """The parameter and both moments; draws in another order would go up as often."""
    lies = jax.sharding.NamedSharding(mesh(), jax.P("x"))
    rows = jnp.full((8, 256), 0.3).at[:, 0].set(1)
    w, m, v = rows.astype("bfloat16"), encode(rows, "int8"), encode(rows, "uint8")
    step = functools.partial(
        adam_8bit.step,
        learning_rate=0.01,
        sharding=lies,
        implementation="tpu",
    )
    counts, keys = jnp.arange(1, 9), jax.random.split(jax.random.key(0), 8)
    got = jax.jit(jax.vmap(lambda t, key: step(w, w, m, v, count=t, key=key)))(
        counts, keys
    )
    for x in (got.w, got.m.codes, got.v.codes):
        x = np.asarray(x, np.float32)[..., 1:]
        up = (x > x.min(-1, keepdims=True)).sum(-1)
        share = up.mean(1) / 255
        expected = np.sqrt(255 * share * (1 - share)).mean()
        assert up.std(1).mean() > 0.6 * expected > 0
