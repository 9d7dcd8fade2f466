"""AdaLomo, which is optax's Adafactor under other numbers: its formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.experiments.configs.optimizers import OPTIMIZERS
from gnomon_contract import Verified

LINE = OPTIMIZERS["adalomo"]
SETTINGS = {k: v for k, v in LINE.items() if k not in ("name", "learning_rate")}
# optax computes the decay of the second moments in float32.
VERIFIED = {
    "adalomo": Verified("F06", "NumPy", 1e-8, "https://arxiv.org/abs/2310.10195")
}


def test_equals_a_numpy_transcription(x64):
    """Factored and whole second moments, the bound of the step, and the scale."""
    rate, floor, tiny = 0.05, 1e-3, 1e-30
    generator = np.random.default_rng(0)
    shapes = {"wide": (3, 5), "tall": (6, 2), "bias": (4,)}
    w = {name: generator.normal(size=shape) for name, shape in shapes.items()}
    w["wide"] = 1e-5 * w["wide"]  # below the least scale
    optimizer = optax.adafactor(rate, **SETTINGS)
    params, means = jax.tree.map(jnp.asarray, w), {}
    with jax.numpy_dtype_promotion("standard"):
        state = optimizer.init(params)
    for t in range(1, 25):
        g = {name: generator.normal(size=shape) for name, shape in shapes.items()}
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(
                jax.tree.map(jnp.asarray, g), state, params
            )
        params = optax.apply_updates(params, updates)
        b2 = 1 - t**-0.8
        for name, x in g.items():
            square = x**2 + tiny
            parts = [square.mean(1), square.mean(0)] if x.ndim == 2 else [square]
            old = means.get(name, [0.0] * len(parts))
            new = [b2 * a + (1 - b2) * b for a, b in zip(old, parts, strict=True)]
            means[name] = new
            v = new[0]
            if x.ndim == 2:
                v = np.outer(new[0], new[1]) / new[0].mean()
            u = x / np.sqrt(v)
            u = u / max(1.0, np.sqrt((u**2).mean()))
            scale = max(floor, np.sqrt((w[name] ** 2).mean()))
            w[name] = w[name] - rate * scale * u
            np.testing.assert_allclose(
                params[name], w[name], rtol=0, atol=VERIFIED["adalomo"].within
            )
