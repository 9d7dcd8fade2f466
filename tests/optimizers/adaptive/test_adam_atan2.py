"""Adam-atan2: its definition, its bound and its invariance."""

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.optimizers import adam_atan2, scale_by_adam_atan2
from gnomon_contract import Row, Verified
from gnomon_contract.layers import by_rank

ROWS = (
    Row(
        "adam_atan2",
        adam_atan2,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "a": 1.27,
            "b": 1.0,
            "weight_decay": 1e-5,
        },
        {"decay": "cautious"},
    ),
)
LAYERS = {
    "adam_atan2": lambda **s: adam_atan2(
        0.1, weight_decay=0.1, weight_decay_mask=by_rank, decay="cautious", **s
    )
}
VERIFIED = {"adam_atan2": Verified("A37", "NumPy", 1e-12)}


def test_equals_a_numpy_transcription(x64, oracle):
    rate, b1, b2, a, b, decay = 0.02, 0.9, 0.97, 1.27, 0.8, 0.05

    def rule(w, g, memory, t):
        m = memory["m"] = b1 * memory.get("m", 0.0) + (1 - b1) * g
        v = memory["v"] = b2 * memory.get("v", 0.0) + (1 - b2) * g * g
        p = a * np.arctan2(m / (1 - b1**t), b * np.sqrt(v / (1 - b2**t)))
        return w - rate * p - decay * w, "all"

    given = dict(b1=b1, b2=b2, a=a, b=b, weight_decay=decay, decay="independent")
    oracle.compare(adam_atan2(rate, **given), rule, steps=40, atol=1e-12)


def directions(scale, **given):
    """Of gradients whose sizes differ from step to step."""
    transform = scale_by_adam_atan2(**given)
    w = jnp.zeros(50)
    grads = jax.random.normal(jax.random.key(0), (30, 50))
    grads = grads * jnp.exp(5 * jnp.sin(jnp.arange(30.0)))[:, None]

    def step(state, g):
        direction, state = transform.update(scale * g, state, w)
        return state, direction

    return jax.lax.scan(step, transform.init(w), grads)[1]


def test_the_scale_of_the_loss_does_not_matter(x64):
    """To the bit for powers of two, and to rounding for other numbers."""
    wanted = directions(1.0)
    np.testing.assert_array_equal(directions(2.0**-60), wanted)
    np.testing.assert_allclose(directions(3e-20), wanted, rtol=1e-13)
    np.testing.assert_allclose(directions(7e20), wanted, rtol=1e-13)


def test_steps_are_bounded(x64):
    """Near a pi / 2, where the last gradient is far above all that came before."""
    found = jnp.abs(directions(1.0, b1=0.0, b2=0.999, a=1.5, b=1e-3))
    assert (found < 1.5 * np.pi / 2).all()
    assert found.max() > 0.99 * 1.5 * np.pi / 2


def test_beside_adam(x64):
    """a / b times Adam's direction where that is small, and equal to it at one."""
    w = jnp.zeros(3)
    transform = scale_by_adam_atan2(0.999, 0.9, a=3.0, b=2.0)
    state = transform.init(w)
    for sign in (1.0, -1.0):  # nearly cancel in the first moment
        g = sign * jnp.array([1.0, 2.0, 3.0])
        direction, state = transform.update(g, state, w)
    adam = state.mu / (1 - 0.999**2) / jnp.sqrt(state.nu / (1 - 0.9**2))
    assert (jnp.abs(adam) < 1e-3).all()
    np.testing.assert_allclose(direction, 1.5 * adam, rtol=1e-6)
    first = scale_by_adam_atan2(a=4 / np.pi)
    direction, _ = first.update(g, first.init(w), w)
    np.testing.assert_allclose(direction, jnp.sign(g), rtol=1e-14)


def test_the_derivative_at_zero_is_finite():
    """For those who differentiate through training."""
    transform = scale_by_adam_atan2()
    w = jnp.zeros(2)

    def first(g):
        return transform.update(g, transform.init(w), w)[0].sum()

    np.testing.assert_array_equal(first(w), 0)
    for derivative in (jax.grad, jax.jacfwd):
        assert np.isfinite(derivative(first)(jnp.array([0.0, 1.0]))).all()
