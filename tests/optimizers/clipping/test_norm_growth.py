"""The norm-growth limiter: its bound, its definition, and that it freezes nothing."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import diagnostics, limit_norm_growth
from gnomon_contract import Verified

LAYERS = {
    "limit_norm_growth": lambda **s: optax.chain(
        limit_norm_growth(1.1, **s), optax.scale(-0.1)
    )
}
VERIFIED = {"limit_norm_growth": Verified("A38", "NumPy", 1e-12)}
SIZES = np.exp(3 * np.sin(np.arange(25.0)))


def emitted(limit, w):
    """Norms of both leaves, whose sizes go up and down at different times."""
    state, found = limit.init(w), []
    for t, size in enumerate(SIZES):
        u = {"a": size * w["a"], "b": SIZES[::-1][t] * w["b"]}
        u, state = limit.update(u, state)
        found.append([float(jnp.linalg.norm(u[name])) for name in "ab"])
    return np.array(found), state


@pytest.mark.parametrize("span", ["leaf", "tree"])
def test_equals_a_numpy_transcription(x64, span):
    w = {"a": jnp.array([[0.6, 0.8]]), "b": jnp.array([2.0])}
    found, state = emitted(limit_norm_growth(1.3, span=span), w)
    wanted = np.stack([SIZES, 2 * SIZES[::-1]], axis=1)
    norms = wanted if span == "leaf" else np.linalg.norm(wanted, axis=1, keepdims=True)
    last = norms[0]
    for t in range(1, len(wanted)):
        by = np.minimum(1, 1.3 * last / norms[t])
        wanted[t], last = wanted[t] * by, norms[t] * by
    within = VERIFIED["limit_norm_growth"].within
    np.testing.assert_allclose(found, wanted, rtol=within)
    np.testing.assert_allclose(diagnostics(state)["limited_norm"], last.mean(), 1e-6)
    if span == "leaf":
        assert (found[1:] <= 1.3 * found[:-1] * (1 + 1e-12)).all()


def test_without_a_limit_and_after_a_zero_update_all_passes():
    w = {"a": jnp.ones((1, 2)), "b": jnp.ones(1)}
    free, _ = emitted(limit_norm_growth(jnp.inf), w)
    np.testing.assert_allclose(free[:, 1], SIZES[::-1], rtol=1e-6)
    limit = limit_norm_growth(1.01)
    state = limit.init(w)
    for by in (0.0, 5.0):
        u = {name: by * leaf for name, leaf in w.items()}
        got, state = limit.update(u, state)
        np.testing.assert_array_equal(got["a"], u["a"])
