"""TVLARS: its definition, and LARS where its factor is one."""

import jax.numpy as jnp
import numpy as np

from gnomon.optimizers import lars, tvlars
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "tvlars",
        tvlars,
        {
            "learning_rate": 0.01,
            "weight_decay": 1e-6,
            "momentum": 0.9,
            "trust": 0.05,
            "alpha": 0.5,
            "rate": 0.002,
            "floor": 0.2,
        },
    ),
)
LAYERS = {"tvlars": lambda **s: tvlars(0.1, weight_decay=0.1, trust=0.1, **s)}
VERIFIED = {"tvlars": Verified("A13", "NumPy", 1e-12)}


def test_equals_a_numpy_transcription(x64, oracle):
    rate, mu, c, decay = 0.3, 0.8, 0.02, 0.05
    alpha, fall, delay, floor = 0.2, 0.3, 10.0, 0.1

    def rule(w, g, memory, t):
        step = rate * g
        if w.ndim > 1:
            pull = g + decay * w
            phi = 1 / (alpha + np.exp(fall * (t - delay))) + floor
            step = rate * c * phi * np.sqrt((w**2).sum() / (pull**2).sum()) * pull
        m = memory["m"] = mu * memory.get("m", 0.0) + step
        return w - m, "all"

    given = dict(weight_decay=decay, momentum=mu, trust=c, stacked="^blocks/")
    time = dict(alpha=alpha, rate=fall, delay=delay, floor=floor)
    within = VERIFIED["tvlars"].within
    oracle.compare(tvlars(rate, **given, **time), rule, steps=30, atol=within)


def run(optimizer, steps=3):
    w = {"kernel": jnp.cos(jnp.arange(6.0)).reshape(3, 2), "bias": jnp.ones(2)}
    state, found = optimizer.init(w), []
    for _ in range(steps):
        updates, state = optimizer.update(w, state, w)
        found.append(updates["kernel"][0, 0])
    return np.array(found)


def test_a_factor_of_one_is_lars():
    """alpha = 0 and rate = 0, and a floor of one after the fall."""
    wanted = run(lars(0.1, weight_decay=5e-4, rule="sum"))
    for time in (dict(alpha=0.0, rate=0.0), dict(rate=50.0, delay=0.0, floor=1.0)):
        np.testing.assert_allclose(run(tvlars(0.1, **time)), wanted, rtol=1e-5)


def test_the_factor_falls_from_one_over_alpha_and_never_overflows():
    found = -run(tvlars(1.0, momentum=0.0, rate=100.0, delay=2.5, alpha=0.1), 4)
    np.testing.assert_allclose(found[:2] / 0.001, 10.0 * found[0] / found[0], rtol=1e-2)
    np.testing.assert_allclose(found[2:], 0.0, atol=1e-20)
