"""EMA-Nesterov: the loop of its author's entry, transcribed."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.optimizers import ema_nesterov, tail_average
from gnomon_contract import Verified

VERIFIED = {
    "ema_nesterov": Verified("", "NumPy", 1e-12),
    "tail_average": Verified("", "NumPy", 1e-12),
}
GIVEN = {"tail_average": {"steps": 2}}


def gradient(w, t):
    return np.sin(3 * w + t) + 0.2 * w


START = np.cos(np.arange(5.0))


def run(last, steps):
    """The parameters after each step of an optimizer that this ends."""
    optimizer = optax.chain(optax.sgd(0.1), last)
    w, seen = jnp.asarray(START), []
    state, update = optimizer.init(w), jax.jit(optimizer.update)
    for t in range(steps):
        updates, state = update(jnp.asarray(gradient(np.asarray(w), t)), state, w)
        w = w + updates
        seen.append(np.asarray(w))
    return seen


def test_lookahead_is_taken_before_each_gradient(x64):
    gamma = 0.8

    def beta(count):
        return jnp.where((count >= 2) & (count < 10), 0.05 * count.astype(float), 0.0)

    w, before, buffer = START.copy(), START.copy(), np.zeros(5)
    found = run(ema_nesterov(beta, gamma), 14)
    for t in range(14):
        if t:
            scale = 0.05 * (t - 1) if 2 <= t - 1 < 10 else 0.0
            w = w + scale * buffer
            np.testing.assert_allclose(found[t - 1], w, atol=1e-12)
        w = w - 0.1 * gradient(w, t)
        buffer = gamma * buffer + (1 - gamma) * (w - before)
        before = w.copy()


def test_the_last_update_ends_at_the_average(x64):
    plain = run(optax.identity(), 8)
    average = plain[0]
    for w in plain[1:]:
        average = average + (w - average) / 3
    for blend in (1.0, 0.4):
        found = run(tail_average(8, horizon=3.0, blend=blend), 8)
        for a, b in zip(found[:-1], plain[:-1], strict=True):
            np.testing.assert_array_equal(a, b)
        wanted = plain[-1] + blend * (average - plain[-1])
        np.testing.assert_allclose(found[-1], wanted, atol=1e-12)
