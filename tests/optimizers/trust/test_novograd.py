"""NovoGrad, which is optax's: a published port, and what its state holds."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "novograd",
        optax.novograd,
        {"learning_rate": 0.003, "b1": 0.95, "b2": 0.98, "weight_decay": 1e-3},
        needs_params=False,
        steps=1500,
    ),
)
VERIFIED = {
    "novograd": Verified(
        "A14",
        "pytorch-optimizer 4.1.0 NovoGrad",
        1e-14,
        "https://arxiv.org/abs/1905.11286",
    )
}


def test_equals_a_published_port(recorded):
    """Decay is inside of the momentum, as published; eps is that of the port."""
    given = dict(b1=0.8, b2=0.95, eps=1e-8, weight_decay=0.1)
    with jax.numpy_dtype_promotion("standard"):
        found = recorded("novograd", optax.novograd(0.05, **given))
    assert found <= VERIFIED["novograd"].within


def test_the_second_moment_is_one_number_a_leaf():
    """The first is the norm of the gradient, and no correction follows."""
    w = {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.array([2.0])}
    optimizer = optax.novograd(1.0, b1=0.95, b2=0.98)
    state = optimizer.init(w)
    for scale in (1.0, 2.0):
        g = jax.tree.map(lambda x, scale=scale: scale * x, w)
        updates, state = optimizer.update(g, state, w)
        if scale == 1.0:
            np.testing.assert_allclose(updates["kernel"].T, [[-0.6, -0.8]], rtol=1e-5)
    nu = optax.tree.get(state, "nu")
    assert nu["kernel"].shape == ()
    np.testing.assert_allclose(nu["kernel"], 0.98 * 25 + 0.02 * 100, rtol=1e-6)
