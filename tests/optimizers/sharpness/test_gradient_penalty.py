"""The gradient penalty: autodiff's answer, and both ways to it."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import adamp
from gnomon.optimizers.sharpness.gradient_penalty import add_gradient_penalty
from gnomon_contract import Row, Verified
from gnomon_contract.layers import descending


def penalized_adamp(*, learning_rate, strength, eps):
    penalty = add_gradient_penalty(learning_rate, strength, eps=eps)
    return optax.chain(penalty, adamp(learning_rate, b2=0.99))


ROWS = (
    Row(
        "add_gradient_penalty",
        penalized_adamp,
        {"learning_rate": 0.05, "strength": 0.5, "eps": 0.01},
        reads=("obj_fn",),
    ),
)
LAYERS = {
    "add_gradient_penalty": lambda: descending(add_gradient_penalty(0.5, eps=0.1))
}
VERIFIED = {"add_gradient_penalty": Verified("D16", "automatic differentiation", 1e-12)}
PARAMS = {"kernel": jnp.array([[0.5, -1.0], [2.0, 0.3]]), "bias": jnp.array([0.1, 1.0])}


def curved(tree):
    both = tree["kernel"].sum(1) * tree["bias"]
    return sum(jnp.sum(jnp.cosh(leaf)) for leaf in jax.tree.leaves(tree)) + both.sum()


def penalized(loss, params, **given):
    transform = add_gradient_penalty(0.2, 0.7, **given)
    grads = jax.grad(loss)(params)
    return transform.update(grads, transform.init(params), params, obj_fn=loss)[0]


def test_exactly_it_is_the_gradient_of_the_loss_and_the_penalty(x64):
    params = jax.tree.map(lambda w: w.astype(jnp.float64), PARAMS)

    def whole(tree):
        squares = jax.tree.map(lambda g: jnp.sum(g**2), jax.grad(curved)(tree))
        return curved(tree) + 0.2 * 0.7 / 8 * sum(jax.tree.leaves(squares))

    got = penalized(curved, params, method="exact")
    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-12),
        got,
        jax.grad(whole)(params),
    )
    # A difference is off by its length, and by a tenth of that at a tenth of it.
    errors = [
        max(
            float(jnp.abs(a - e).max())
            for a, e in zip(
                jax.tree.leaves(penalized(curved, params, eps=eps)),
                jax.tree.leaves(got),
                strict=True,
            )
        )
        for eps in (1e-3, 1e-4)
    ]
    assert errors[0] < 1e-3
    np.testing.assert_allclose(errors[0] / errors[1], 10, rtol=0.02)


def test_on_a_quadratic_both_ways_agree(x64):
    params = jax.tree.map(lambda w: w.astype(jnp.float64), PARAMS)

    def bowl(tree):
        return sum(jnp.sum((i + 1.0) * w**2) for i, w in enumerate(tree.values()))

    jax.tree.map(
        lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-12),
        penalized(bowl, params, eps=3.0),
        penalized(bowl, params, method="exact"),
    )


@pytest.mark.parametrize("method", ["forward", "exact"])
def test_a_leaf_without_a_gradient_stays_out(method):
    transform = add_gradient_penalty(0.2, method=method)
    grads = jax.grad(curved)(PARAMS) | {"bias": None}
    state = transform.init(PARAMS)
    got, _ = transform.update(grads, state, PARAMS, obj_fn=curved)
    assert got["bias"] is None

    def alone(kernel):
        return curved(PARAMS | {"kernel": kernel})

    first = transform.init(PARAMS["kernel"])
    wanted, _ = transform.update(grads["kernel"], first, PARAMS["kernel"], obj_fn=alone)
    np.testing.assert_allclose(got["kernel"], wanted, rtol=1e-5)
