"""Scion: a published port, its ball, and its radii by role."""

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.optimizers import scion
from gnomon.optimizers.matrix.dual_norms import NORMS
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "scion",
        scion,
        {"learning_rate": 0.004, "momentum": 0.9, "vector_radius": 0.5},
        {
            "constrained": False,
            "hidden_radius": 3.0,
            "embedding_radius": 1.0,
            "method": "svd",
        },
        needs_params=False,
        steps=2000,
    ),
)
LAYERS = {"scion": lambda **s: scion(0.1, method="svd", **s)}
VERIFIED = {"scion": Verified("", "pytorch-optimizer 4.1.0 SCION", 1e-12)}


def test_equals_a_published_port(recorded):
    """Whose radius is one for all leaves."""
    given = dict(momentum=0.8, hidden_radius=0.7, vector_radius=0.7)
    assert recorded("scion", scion(0.05, **given)) <= VERIFIED["scion"].within


def test_weights_stay_in_the_ball_of_their_role(x64):
    """From within, by any gradients; and the ball is reached."""
    radii = dict(
        hidden_radius=2.0, head_radius=5.0, embedding_radius=3.0, vector_radius=0.5
    )
    optimizer = scion(0.2, method="svd", **radii)
    shapes = {
        "embed": {"embedding": (6, 3)},
        "up": {"kernel": (3, 4), "bias": (4,)},
        "head": {"kernel": (4, 6)},
    }
    w = jax.tree.map(jnp.zeros, shapes, is_leaf=lambda x: isinstance(x, tuple))

    @jax.jit
    def run(w):
        def step(carry, t):
            w, state = carry
            g = jax.tree.map(lambda x: jnp.cos(jnp.arange(x.size)).reshape(x.shape), w)
            g = jax.tree.map(lambda x: x * jnp.where(t % 30 < 20, 1.0, -1.0), g)
            updates, state = optimizer.update(g, state, w)
            w = jax.tree.map(jnp.add, w, updates)
            return (w, state), norms(w)

        return jax.lax.scan(step, (w, optimizer.init(w)), jnp.arange(60))[1]

    def norms(w):
        return jnp.stack(
            [
                NORMS["spectral"].primal(w["up"]["kernel"]),
                NORMS["sign"].primal(w["head"]["kernel"]),
                NORMS["input"].primal(w["embed"]["embedding"]),
                jnp.sqrt(jnp.mean(w["up"]["bias"] ** 2)),
            ]
        )

    found = np.asarray(run(w))
    limits = np.array([2.0, 5.0, 3.0, 0.5])
    assert (found <= limits * (1 + 1e-12)).all()
    assert (found.max(0) > 0.95 * limits).all()
