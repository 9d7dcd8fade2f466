"""SOAP: a published port, Adam without bases, and turned problems."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import scale_by_soap, soap
from gnomon_contract import Row, Verified

ROWS = (
    Row(
        "soap",
        soap,
        {
            "learning_rate": 0.05,
            "b1": 0.9,
            "b2": 0.99,
            "every": 2.0,
            "weight_decay": 1e-6,
        },
        # The bases of a longer side, where gradients have less rank, are not unique.
        {"sides": "smaller"},
    ),
)
SMALLER = dict(every=2, sides="smaller")
LAYERS = {
    "soap": lambda **s: soap(0.1, weight_decay=0.1, **SMALLER, **s),
    "scale_by_soap": lambda **s: optax.chain(
        scale_by_soap(**SMALLER, **s), optax.scale(-0.1)
    ),
}
VERIFIED = {"soap": Verified("", "pytorch-optimizer 4.1.0 SOAP", 1e-12)}


def test_equals_a_published_port(recorded):
    """Bases that are refreshed every third update, after a first one that only finds
    them; a bias is Adam's and waits, too."""
    given = dict(b1=0.8, b2=0.95, gram_decay=0.9, eps=0.0, every=3)
    optimizer = soap(0.05, matrices="kernel", **given)
    assert recorded("soap", optimizer) <= VERIFIED["soap"].within


W = {"kernel": jnp.cos(jnp.arange(12.0)).reshape(4, 3), "bias": jnp.ones(3)}


def train(optimizer, w, gradient, steps=5):
    state, update = optimizer.init(w), jax.jit(optimizer.update)
    with jax.numpy_dtype_promotion("standard"):  # optax: a float to an int32 count
        for t in range(steps):
            updates, state = update(gradient(w, t), state, w)
            w = optax.apply_updates(w, updates)
    return w, state


def waves(w, t):
    return jax.tree.map(lambda x: jnp.sin((t + 1) * x) + 0.1 * x, w)


def test_without_bases_it_is_adam(x64):
    w = jax.tree.map(lambda x: x.astype(float), W)
    plain, _ = train(optax.adamw(0.1, 0.9, 0.97, weight_decay=0.2), w, waves)
    none = dict(b1=0.9, b2=0.97, weight_decay=0.2, matrices="kernel", max_size=2)
    none["skip_first"] = False
    found, state = train(soap(0.1, **none), w, waves)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-13), found, plain
    )
    assert state[0].input_basis["kernel"].size == 1


def test_the_first_step_whitens_the_first_gradient(x64):
    """In its own bases a gradient is diagonal, and Adam's step the signs: the polar
    factor; by one side, what has orthogonal rows of one length."""
    g = jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))
    left, _, right = np.linalg.svd(g, full_matrices=False)
    direction = scale_by_soap(eps=1e-8, matrices=True, skip_first=False)
    found, _ = direction.update(g, direction.init(g), g)
    np.testing.assert_allclose(found, left @ right, atol=1e-6)


def test_a_turned_problem_has_turned_iterates(x64):
    """By both sides; Adam has not."""
    generator = np.random.default_rng(1)
    turns = [np.linalg.qr(generator.normal(size=(n, n)))[0] for n in (4, 3)]
    target = jnp.asarray(generator.normal(size=(4, 3)))
    noise = jnp.asarray(generator.normal(size=(6, 4, 3)))

    def turn(x):
        return turns[0] @ x @ turns[1]

    def run(optimizer, turned):
        start = jnp.zeros((4, 3))
        to = turn if turned else (lambda x: x)
        gradient = lambda w, t: w - to(target) + to(noise[t])  # noqa: E731
        return train(optimizer, start, gradient, steps=6)[0]

    ours = soap(0.1, every=2, matrices=True)
    np.testing.assert_allclose(run(ours, True), turn(run(ours, False)), atol=1e-9)
    adam = optax.adam(0.1)
    assert np.abs(run(adam, True) - turn(run(adam, False))).max() > 0.01


@pytest.mark.parametrize("sides", ["smaller", "inputs", "outputs"])
def test_one_sided(sides, x64):
    w = {"kernel": W["kernel"].astype(float)}
    _, state = train(soap(0.1, sides=sides, matrices="kernel"), w, waves, steps=2)
    sizes = [state[0].input_gram["kernel"].size, state[0].output_gram["kernel"].size]
    assert sizes == {"smaller": [1, 9], "inputs": [16, 1], "outputs": [1, 9]}[sides]
