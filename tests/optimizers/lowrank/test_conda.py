"""Conda: a published port, NumPy across refreshes, Adam, turned problems."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.optimizers import conda
from gnomon.optimizers.lowrank.conda import scale_by_conda
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "conda",
        conda,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "every": 20.0,
            "weight_decay": 1e-6,
        },
    ),
)
LAYERS = {"conda": lambda **s: conda(0.1, every=2, weight_decay=0.1, **s)}
VERIFIED = {"conda": Verified("A21", "pytorch-optimizer 4.1.0 Conda", 1e-12)}
B1, B2 = 0.8, 0.9


def test_equals_a_published_port(recorded):
    given = dict(b1=0.8, b2=0.95, eps=0.0, every=1000, scale=0.5, matrices="kernel")
    assert recorded("conda", conda(0.05, **given)) <= VERIFIED["conda"].within


def test_equals_a_numpy_transcription_across_refreshes(beside, numpy_rules):
    """There the first moment stays in the coordinates of the weights."""
    adam, leading = numpy_rules

    def rule(x, memory, t):
        if x.ndim == 1:
            return adam(x, memory, t, B1, B2)
        m = memory["m"] = B1 * memory.get("m", 0.0) + (1 - B1) * x
        if t % 3 == 1:
            memory["u"] = leading(m, len(x))
        u = memory["u"]
        v = memory["v"] = B2 * memory.get("v", 0.0) + (1 - B2) * (u.T @ x) ** 2
        return u @ (u.T @ m / (1 - B1**t) / np.sqrt(v / (1 - B2**t)))

    ours = scale_by_conda(B1, B2, 0.0, every=3, matrices="kernel")
    assert beside(ours, rule) <= 1e-12


def test_without_turns_it_is_adam(beside, numpy_rules):
    adam, _ = numpy_rules
    ours = scale_by_conda(B1, B2, 0.0, basis="rows", every=3, matrices="kernel")
    assert beside(ours, lambda x, memory, t: adam(x, memory, t, B1, B2), 6) <= 1e-12


def test_a_turned_problem_has_turned_iterates(x64):
    """Turned on the side that has the basis; Adam has not."""
    generator = np.random.default_rng(1)
    turn = np.linalg.qr(generator.normal(size=(3, 3)))[0]
    noise = jnp.asarray(generator.normal(size=(5, 3, 4)))

    def run(optimizer, turn):
        w = jnp.zeros((3, 4))
        state, update = optimizer.init(w), jax.jit(optimizer.update)
        with jax.numpy_dtype_promotion("standard"):
            for d in noise:
                updates, state = update(w + turn @ d, state, w)
                w = optax.apply_updates(w, updates)
        return w

    ours = conda(0.1, every=2, matrices=True)
    straight = run(ours, np.eye(3))
    np.testing.assert_allclose(run(ours, turn), turn @ straight, atol=1e-9)
    adam = optax.adam(0.1)
    assert np.abs(run(adam, turn) - turn @ run(adam, np.eye(3))).max() > 0.01
