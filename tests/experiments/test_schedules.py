"""Schedules: shapes, ends, and that a grid of peaks is one program."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.experiments import schedules


@pytest.mark.parametrize("name", ["warmup_cosine", "warmup_linear"])
def test_warms_up_peaks_and_ends_at_its_final_value(name):
    schedule = getattr(schedules, name)(0.3, 200, warmup=0.1, final=0.25)
    rates = np.array([float(schedule(t)) for t in range(201)])
    assert rates[0] > 0
    assert np.argmax(rates) == 20
    np.testing.assert_allclose(rates[20], 0.3, rtol=1e-6)
    np.testing.assert_allclose(rates[200], 0.075, rtol=1e-5)
    assert np.all(np.diff(rates[:21]) > 0)
    assert np.all(np.diff(rates[20:]) < 0)


def test_cosine_equals_optax_after_warm_up():
    ours = schedules.warmup_cosine(0.3, 100, warmup=0.0, final=0.1)
    theirs = optax.cosine_decay_schedule(0.3, 100, alpha=0.1)
    for t in (0, 13, 50, 99, 100):
        np.testing.assert_allclose(ours(t), theirs(t), rtol=1e-5)


@pytest.mark.parametrize("name", ["constant", "warmup_cosine", "warmup_linear"])
def test_peaks_and_lengths_may_be_traced(name):
    make = getattr(schedules, name)
    peaks, steps = jnp.array([0.1, 0.2]), jnp.array([50, 100])
    rates = jax.vmap(lambda p, s: make(p, s)(10))(peaks, steps)
    each = [make(p, s)(10) for p, s in [(0.1, 50), (0.2, 100)]]
    np.testing.assert_allclose(rates, np.stack(each), rtol=1e-6)
