"""The last link of an optimizer: the conventions of weight decay."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import lawn
from gnomon.optimizers.mechanisms.descent import descend

CONVENTIONS = {
    "scaled": lambda u, w, rate, decay: w - rate * (u + decay * w),
    "independent": lambda u, w, rate, decay: w - rate * u - decay * w,
    "cautious": lambda u, w, rate, decay: (
        w - rate * u - rate * decay * w * (np.sign(u) * np.sign(w) >= 0)
    ),
}


@pytest.mark.parametrize("decay", CONVENTIONS)
def test_conventions_of_decay(x64, decay):
    """Against NumPy, under schedules and a mask that looks at single layers."""
    shapes = {"blocks": {"kernel": (2, 3, 2), "gain": (2, 3)}, "kernel": (3, 2)}
    generator = np.random.default_rng(0)

    def draw():
        is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
        return jax.tree.map(generator.standard_normal, shapes, is_leaf=is_shape)

    step = descend(
        lambda count: 0.1 / (1.0 + count.astype(float)),
        lambda count: 0.2 * (1.0 + count.astype(float)),
        weight_decay_mask=lambda tree: jax.tree.map(lambda w: w.ndim == 2, tree),
        decay=decay,
        stacked="^blocks/",
    )
    wanted = draw()
    params = jax.tree.map(jnp.asarray, wanted)
    state = step.init(params)
    decays = {"blocks": {"kernel": True, "gain": False}, "kernel": True}
    for t in range(3):
        grads = draw()
        grads["kernel"][0] = 0  # neither with the weight nor against it
        updates, state = step.update(jax.tree.map(jnp.asarray, grads), state, params)
        params = optax.apply_updates(params, updates)
        wanted = jax.tree.map(
            lambda u, w, on, t=t: CONVENTIONS[decay](
                u, w, 0.1 / (1 + t), 0.2 * (1 + t) * on
            ),
            grads,
            wanted,
            decays,
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-14, atol=1e-15),
            params,
            wanted,
        )


def test_scaled_decay_is_that_of_adamw():
    """Bit for bit, in float32."""
    w = {"kernel": jnp.cos(jnp.arange(12.0)).reshape(4, 3)}
    ours = optax.chain(optax.scale_by_adam(), descend(0.1, 0.3))
    theirs = optax.adamw(0.1, weight_decay=0.3)
    with jax.numpy_dtype_promotion("standard"):
        got, wanted = (o.update(w, o.init(w), w)[0] for o in (ours, theirs))
    np.testing.assert_array_equal(got["kernel"], wanted["kernel"])


def test_cautious_decay_survives_underflow():
    """The product of two numbers below 1e-23 is zero in float32; their signs differ."""
    w = jnp.array([1e-30, -1e-30])
    step = descend(1.0, 0.5, decay="cautious")
    updates, _ = step.update(-w, step.init(w), w)
    np.testing.assert_array_equal(updates, w)


def test_decay_on_a_fixed_norm_is_refused_by_the_name_of_the_optimizer():
    inner = optax.chain(optax.scale_by_adam(), descend(0.1, 0.3, name="new_method"))
    wrapped = lawn(inner, free_steps=0)
    with pytest.raises(ValueError, match=r"lawn fixes the norm of .* and new_method"):
        wrapped.init({"kernel": jnp.ones((3, 2))})
    with pytest.raises(ValueError, match="decay='hidden' is not one of"):
        descend(0.1, 0.3, decay="hidden")
