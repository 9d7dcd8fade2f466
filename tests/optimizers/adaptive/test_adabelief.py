"""AdaBelief: its definition, optax's, and what a constant gradient does to it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.optimizers import adabelief, scale_by_belief
from gnomon_contract import Row, Verified
from gnomon_contract.layers import by_rank

ROWS = (
    Row(
        "adabelief",
        adabelief,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "eps": 1e-16,
            "weight_decay": 1e-5,
        },
    ),
)
LAYERS = {
    "adabelief": lambda **s: adabelief(
        0.1, weight_decay=0.1, weight_decay_mask=by_rank, **s
    )
}
VERIFIED = {"adabelief": Verified("A07", "NumPy", 1e-12)}


def test_equals_a_numpy_transcription(x64, oracle):
    rate, b1, b2, eps, decay = 0.02, 0.9, 0.97, 1e-7, 0.05

    def rule(w, g, memory, t):
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = b2 * memory.get("v", 0.0) + (1 - b2) * (g - m) ** 2 + eps
        memory["v"] = v
        p = m / (1 - b1**t) / (np.sqrt(v / (1 - b2**t)) + eps)
        return w - rate * (p + decay * w), "all"

    optimizer = adabelief(rate, b1=b1, b2=b2, eps=eps, weight_decay=decay)
    oracle.compare(optimizer, rule, steps=40, atol=1e-12)


def test_equals_optax(x64):
    """Which has no weight decay, and a name of its own for eps in the second moment."""
    w = {"kernel": jnp.cos(jnp.arange(12.0)).reshape(4, 3)}
    ours = adabelief(0.1, b2=0.98, eps=1e-10)
    theirs = optax.adabelief(0.1, b2=0.98, eps=1e-10, eps_root=1e-10)
    with jax.numpy_dtype_promotion("standard"):
        states = [ours.init(w), theirs.init(w)]
        for t in range(5):
            g = jax.tree.map(lambda x, t=t: jnp.sin((t + 1) * x), w)
            got, states[0] = ours.update(g, states[0], w)
            wanted, states[1] = theirs.update(g, states[1], w)
            np.testing.assert_allclose(got["kernel"], wanted["kernel"], rtol=1e-12)


def test_a_constant_gradient_surprises_less_and_less(x64):
    """v in closed form; the step rises from 1 / b1 to |g| / sqrt(eps / (1 - b2))."""
    b1, b2, eps, g = 0.9, 0.99, 1e-16, 0.3
    transform = scale_by_belief(b1, b2, eps)
    w = jnp.zeros(1)

    def step(state, _):
        direction, state = transform.update(jnp.full(1, g), state, w)
        return state, (direction[0], state.nu[0])

    steps = 5000
    _, (found, nu) = jax.lax.scan(step, transform.init(w), length=steps)
    t = np.arange(1, steps + 1)
    surprise = (1 - b2) * g**2 * b1**2 * (b2**t - b1 ** (2 * t)) / (b2 - b1**2)
    np.testing.assert_allclose(nu, surprise + eps * (1 - b2**t) / (1 - b2), rtol=1e-9)
    np.testing.assert_allclose(found[0], 1 / b1, rtol=1e-12)
    np.testing.assert_allclose(found[999], 717, rtol=1e-3)
    bound = g / np.sqrt(eps / (1 - b2))
    assert (found < bound).all()
    np.testing.assert_allclose(found[-1], bound, rtol=1e-4)


def test_eps_is_not_lost_in_half_precision():
    w = jnp.ones(2, jnp.float16)
    transform = scale_by_belief()
    _, state = transform.update(jnp.zeros_like(w), transform.init(w), w)
    np.testing.assert_array_equal(state.nu, np.float32(1e-16))
    assert state.mu.dtype == jnp.float16
