"""Fira: a published port, NumPy, and what is outside of the subspace."""

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.optimizers import diagnostics, fira
from gnomon.optimizers.lowrank.fira import scale_by_fira
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "fira",
        fira,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "scale": 1.0,
            "every": 2.0,
            "weight_decay": 1e-6,
        },
        {"rank": 2},
        # Without a residual, with another one, and with an average for a rule.
        covers=("galore", "subspace_momentum"),
    ),
)
GIVEN = {"fira": dict(rank=2)}
LAYERS = {"fira": lambda **s: fira(0.1, rank=2, every=2, weight_decay=0.1, **s)}
# In the form of the port, which adds 1e-8 to norms, and NumPy to 1e-12.
VERIFIED = {"fira": Verified("F02", "pytorch-optimizer 4.1.0 Fira", 1e-8)}
B1, B2 = 0.8, 0.9


def test_equals_a_published_port(recorded):
    given = dict(b1=0.8, b2=0.95, eps=0.0, rank=2, every=1000, matrices="kernel")
    port = recorded("fira", fira(0.05, published=True, **given))
    assert port <= VERIFIED["fira"].within
    assert recorded("fira", fira(0.05, **given)) > 1e-3


def test_equals_a_numpy_transcription(beside, numpy_rules):
    adam, leading = numpy_rules
    limited = set()

    def rule(x, memory, t):
        if x.ndim == 1:
            return adam(x, memory, t, B1, B2)
        if t % 4 == 1:
            memory["p"] = leading(x, 2)
        p = memory["p"]
        r = p.T @ x
        psi = adam(r, memory, t, B1, B2)
        pace = np.linalg.norm(psi, axis=0) / np.linalg.norm(r, axis=0)
        s = pace * (x - p @ r)
        norm, last = np.linalg.norm(s), memory.get("norm", np.inf)
        limited.add(norm > 1.05 * last)
        s = s * min(1, 1.05 * last / norm)
        memory["norm"] = np.linalg.norm(s)
        return 0.3 * p @ psi + s

    given = dict(rank=2, scale=0.3, gamma=1.05, every=4, matrices="kernel")
    ours = scale_by_fira(B1, B2, 0.0, **given)
    assert beside(ours, rule) <= 1e-12
    assert limited == {True, False}


def test_at_full_rank_there_is_no_residual(beside, numpy_rules):
    adam, _ = numpy_rules
    given = dict(rank=None, scale=1.0, basis="rows", every=3, matrices="kernel")
    ours = scale_by_fira(B1, B2, 0.0, **given)
    assert beside(ours, lambda x, memory, t: adam(x, memory, t, B1, B2), 6) <= 1e-12


def test_the_residual_grows_by_a_factor_and_a_zero_freezes_nothing():
    w = {"kernel": jnp.array([[3.0, 3.0], [1.0, -1.0]])}
    optimizer = scale_by_fira(0.0, rank=1, gamma=2.0, basis="rows", matrices="kernel")
    state, norms, update = optimizer.init(w), [], jax.jit(optimizer.update)
    for by in (1.0, 0.0, 1.0, 9.0):
        grads = {"kernel": w["kernel"].at[1].multiply(by)}
        _, state = update(grads, state, w)
        norms.append(float(diagnostics(state)["residual_norm"]))
    assert norms[1] == 0
    assert min(norms[0], norms[2]) > 0.4
    np.testing.assert_allclose(norms[3], 2 * norms[2], rtol=1e-5)


def test_what_the_subspace_does_not_see_has_no_pace():
    g = {"kernel": jnp.diag(jnp.array([3.0, 1.0]))}
    optimizer = scale_by_fira(rank=1, matrices="kernel")
    u, _ = optimizer.update(g, optimizer.init(g), g)
    np.testing.assert_allclose(u["kernel"], [[0.25, 0], [0, 0]], atol=1e-6)
