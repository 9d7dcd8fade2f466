"""Subset-Norm: a published port, Adam and AdaGrad at its ends, and its subsets."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import scale_by_subset_norm, subset_norm
from gnomon_contract import Row, Verified
from gnomon_contract.layers import descending

ROWS = (
    Row(
        "subset_norm",
        subset_norm,
        {"learning_rate": 0.1, "b1": 0.9, "b2": 0.99, "weight_decay": 1e-5},
    ),
)
LAYERS = {
    "subset_norm": lambda **s: subset_norm(0.1, subset="root", **s),
    "scale_by_subset_norm": lambda **s: descending(
        scale_by_subset_norm(subset="smaller", **s)
    ),
}
VERIFIED = {"subset_norm": Verified("F04", "pytorch-optimizer 4.1.0 AdamWSN", 1e-14)}
W = {"kernel": jnp.cos(jnp.arange(12.0)).reshape(4, 3), "bias": jnp.ones(3)}


def test_equals_a_published_port(recorded):
    """Which gives a vector one subset, and its rows are units."""
    given = dict(b1=0.8, b2=0.95, eps=0.0)
    parts = {
        "kernel": subset_norm(0.05, subset="unit", **given),
        "bias": subset_norm(0.05, subset=4, **given),
    }
    optimizer = optax.partition(parts, {"kernel": "kernel", "bias": "bias"})
    assert recorded("subset_norm", optimizer) <= VERIFIED["subset_norm"].within


def directions(transform, steps=4):
    with jax.numpy_dtype_promotion("standard"):
        state, found = transform.init(W), []
        for t in range(steps):
            g = jax.tree.map(lambda x, t=t: jnp.sin((t + 1) * x), W)
            direction, state = transform.update(g, state, W)
            found.append(direction)
    return found


def same(transform, wanted, name="kernel"):
    for a, b in zip(directions(transform), wanted, strict=True):
        np.testing.assert_allclose(a[name], b[name], rtol=2e-5, atol=1e-7)


def test_subsets_of_one_number_are_adam_and_adagrad():
    given = dict(b1=0.8, b2=0.95, eps=1e-4)
    adam = directions(optax.scale_by_adam(**given))
    same(scale_by_subset_norm(**given, subset=1), adam)
    same(scale_by_subset_norm(**given), adam, "bias")
    adagrad = directions(optax.scale_by_rss(initial_accumulator_value=0.0, eps=0.0))
    same(scale_by_subset_norm(0.0, 1.0, 0.0, subset=1), adagrad)


def test_one_subset_is_adagrad_norm_of_the_leaf():
    total, wanted = 0.0, []
    for t in range(4):
        g = np.sin((t + 1) * np.asarray(W["kernel"]))
        total += (g**2).sum()
        wanted.append({"kernel": g / np.sqrt(total)})
    same(scale_by_subset_norm(0.0, 1.0, 0.0, subset=12), wanted)


@pytest.mark.parametrize(
    ("subset", "shape"),
    [
        ("unit", (1, 3)),
        ("input", (4, 1)),
        ("smaller", (4, 1)),  # summed over the 3 outputs
        ("root", (12,)),  # of 1 number: the largest divisor up to 3 / 2
        (5, (3,)),  # of 4: the largest divisor below
    ],
)
def test_the_first_step_of_every_subset_has_norm_one(subset, shape):
    transform = scale_by_subset_norm(eps=0.0, subset=subset)
    state = transform.init(W)
    direction, state = transform.update(jax.tree.map(jnp.sin, W), state, W)
    assert state.nu["kernel"].shape == shape
    squares = jnp.square(direction["kernel"])
    if len(shape) == 1:
        sums = squares.reshape(*shape, -1).sum(-1)
    else:
        sums = squares.sum(0 if shape[0] == 1 else 1)
    np.testing.assert_allclose(sums, 1.0, rtol=1e-5)


def test_subsets_that_are_none_are_refused():
    for subset in ("row", 0, True, 2.5):
        with pytest.raises(ValueError, match=r"^subset="):
            scale_by_subset_norm(subset=subset)
