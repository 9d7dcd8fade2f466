"""perturb: which gradient the optimizer gets, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers.mechanisms.diagnostics import observed
from gnomon.optimizers.mechanisms.perturb import Displaced, perturb
from gnomon.parameters.trees import map_leaves


def ahead(grads, params, count):
    """Half of a step of gradient descent."""
    return Displaced(map_leaves(lambda g, w: (w - 0.5 * g,), grads, (), params)[0])


GIVEN = {"perturb": dict(displace=ahead)}
LAYERS = {"perturb": lambda i, **s: perturb(i, ahead, **s)}


def loss(tree):
    return sum(jnp.sum(jnp.cosh(leaf)) for leaf in jax.tree.leaves(tree))


PARAMS = {"kernel": jnp.array([[1.0, -2.0]]), "bias": jnp.array([0.5, 0.0])}
GRADS = jax.grad(loss)(PARAMS)


@pytest.mark.parametrize("passed", ["obj_fn", "value_fn", "grad_fn"])
def test_the_optimizer_gets_the_gradient_at_the_point(passed):
    """As its gradient and as ``grad``; the value and the rest stay what they were."""
    seen = {}

    def update(updates, state, params=None, **extra):
        seen.update(extra, updates=updates)
        return jax.tree.map(jnp.negative, updates), state

    inner = optax.GradientTransformationExtraArgs(lambda params: (), update)
    optimizer = perturb(inner, ahead)
    function = jax.grad(loss) if passed == "grad_fn" else loss
    given = {passed: function, "value": 3.0, "grad": GRADS, "more": "text"}
    optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS, **given)
    wanted = jax.grad(loss)(ahead(GRADS, PARAMS, 0).points)
    for got in (seen["updates"], seen["grad"]):
        jax.tree.map(np.testing.assert_allclose, got, wanted)
    assert (seen["value"], seen["more"], seen[passed]) == (3.0, "text", function)


def test_the_updates_between_are_those_of_the_optimizer():
    inner = optax.sgd(0.1, momentum=0.9)
    optimizer = perturb(inner, ahead, every=3)

    @jax.jit
    def step(params, state):
        grads = jax.grad(loss)(params)
        updates, state = optimizer.update(grads, state, params, obj_fn=loss)
        return optax.apply_updates(params, updates), state

    params, state = PARAMS, optimizer.init(PARAMS)
    expected, trace = PARAMS, inner.init(PARAMS)
    for number in range(7):
        params, state = step(params, state)
        grads = jax.grad(loss)(expected)
        if number % 3 == 0:
            grads = jax.grad(loss)(ahead(grads, expected, number).points)
        updates, trace = inner.update(grads, trace, expected)
        expected = optax.apply_updates(expected, updates)
        jax.tree.map(
            lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-6), params, expected
        )


def test_a_leaf_without_a_gradient_stays_where_it_is():
    """Of the loss it is a part all the same."""
    optimizer = perturb(optax.sgd(1.0), ahead)

    def coupled(tree):
        return jnp.sum(tree["kernel"] ** 2) * tree["bias"][0]

    grads = {"kernel": jax.grad(coupled)(PARAMS)["kernel"], "bias": None}
    updates, _ = optimizer.update(grads, optimizer.init(PARAMS), PARAMS, obj_fn=coupled)
    assert updates["bias"] is None
    # The gradient is the weight itself, and half of the weight is left at the point.
    np.testing.assert_allclose(updates["kernel"], -0.5 * PARAMS["kernel"])


def test_it_tells_how_far_the_gradient_turned():
    optimizer = perturb(optax.sgd(0.1), ahead)
    state = optimizer.init(PARAMS)
    with observed() as seen:
        optimizer.update(GRADS, state, PARAMS, obj_fn=loss)
    there = jax.grad(loss)(ahead(GRADS, PARAMS, 0).points)
    x, y = (
        np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
        for tree in (there, GRADS)
    )
    cosine = x @ y / np.linalg.norm(x) / np.linalg.norm(y)
    assert cosine < 0.99
    np.testing.assert_allclose(seen["gradient_cosine"], cosine, rtol=1e-5)


def test_what_is_missing_is_named():
    optimizer = perturb(optax.sgd(0.1), ahead)
    with pytest.raises(ValueError, match=r"perturb needs the gradient .*obj_fn"):
        optimizer.update(GRADS, optimizer.init(PARAMS), PARAMS)
    with pytest.raises(ValueError, match=r"every=0\.5"):
        perturb(optax.sgd(0.1), ahead, every=0.5)
