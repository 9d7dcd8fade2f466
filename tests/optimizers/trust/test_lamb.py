"""LAMB: a published port, optax's, and what stays outside of the ratio."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.optimizers import lamb
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "lamb",
        lamb,
        {
            "learning_rate": 0.01,
            "b1": 0.9,
            "b2": 0.99,
            "weight_decay": 1e-6,
            "largest": 5.0,
        },
    ),
)
LAYERS = {"lamb": lambda **s: lamb(0.1, weight_decay=0.1, **s)}
VERIFIED = {"lamb": Verified("A12", "timm 1.0.31 Lamb", 1e-14)}


def test_equals_a_published_port(recorded):
    """Which takes the ratio over vectors, too."""
    given = dict(b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1, constrained=True)
    assert recorded("lamb", lamb(0.05, **given)) <= VERIFIED["lamb"].within


def test_equals_optax_on_kernels_and_adam_elsewhere(x64):
    w = {"kernel": jnp.cos(jnp.arange(12.0)).reshape(4, 3), "bias": jnp.ones(3)}
    ours = lamb(0.1, b2=0.98, weight_decay=0.2)
    theirs = optax.partition(
        {"a": optax.lamb(0.1, b2=0.98, weight_decay=0.2), "b": optax.adam(0.1, b2=0.98)}
        | {"b": optax.adam(0.1, b2=0.98, eps=1e-6)},
        {"kernel": "a", "bias": "b"},
    )
    with jax.numpy_dtype_promotion("standard"):
        states = [ours.init(w), theirs.init(w)]
        for t in range(5):
            g = jax.tree.map(lambda x, t=t: jnp.sin((t + 1) * x), w)
            got, states[0] = ours.update(g, states[0], w)
            wanted, states[1] = theirs.update(g, states[1], w)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), got, wanted
            )


def test_the_norm_that_weights_count_for_is_cut():
    w = {"kernel": jnp.array([[3.0], [4.0]]), "zero": {"kernel": jnp.zeros((2, 1))}}
    g = jax.tree.map(jnp.ones_like, w)
    for cut, length in ((dict(largest=2.0), 2.0), (dict(smallest=7.0), 7.0)):
        optimizer = lamb(1.0, **cut)
        updates, _ = optimizer.update(g, optimizer.init(w), w)
        found = jnp.linalg.norm(updates["kernel"])
        np.testing.assert_allclose(found, length, rtol=1e-6)
        # Without weights there is no ratio: Adam's step.
        np.testing.assert_allclose(updates["zero"]["kernel"], -1.0, rtol=1e-5)
