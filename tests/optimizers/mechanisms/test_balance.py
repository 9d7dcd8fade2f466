"""Whose angle at equilibrium is known, and in which words another's is not."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers
from gnomon.optimizers import adabelief, balance, descend, leafwise, observed

W = jnp.array([3.0, 4.0])


class State(NamedTuple):
    count: jax.Array
    mu: optax.Updates


def mine(b1):
    """A method that no list knows: momentum over a scale of its own."""

    def rule(h, g, w, mu):
        mu = h.b1 * mu + (1 - h.b1) * g
        return mu / jnp.linalg.norm(w), mu

    numbers = {"[0, 1)": dict(b1=b1)}
    says = lambda now: dict(momentum=now["b1"])  # noqa: E731
    return leafwise("mine", rule, State, (None,), numbers, says=says)


def of(optimizer, steps=1):
    """What is said of the last of some steps."""
    optimizer = optax.with_extra_args_support(optimizer)
    state = optimizer.init(W)
    for _ in range(steps):
        with observed() as seen:
            _, state = optimizer.update(W, state, W, value=1.0)
    return balance(seen, state)


def test_a_step_says_its_momentum_and_what_decay_removes():
    """By the convention of decay and at the values of its schedules."""
    warmup = optax.linear_schedule(0.1, 0.3, 2)
    scaled = adabelief(warmup, b1=0.5, weight_decay=0.1)
    independent = optax.chain(mine(0.7), descend(warmup, 0.1, decay="independent"))
    np.testing.assert_allclose(of(scaled), (0.5, 0.01), rtol=1e-6)
    np.testing.assert_allclose(of(scaled, steps=3), (0.5, 0.03), rtol=1e-6)
    np.testing.assert_allclose(of(independent, steps=3), (0.7, 0.1), rtol=1e-6)
    np.testing.assert_array_equal(of(optax.chain(mine(0.7), descend(0.1)))[1], 0.0)


def test_what_is_said_leaves_a_compiled_step():
    def step(b1):
        optimizer = adabelief(1.0, b1=b1, weight_decay=0.1)
        with observed() as seen:
            _, state = optimizer.update(W, optimizer.init(W), W)
        return seen, state

    lanes = balance(*jax.jit(jax.vmap(step))(jnp.array([0.5, 0.9])))
    np.testing.assert_allclose(lanes.momentum, [0.5, 0.9])
    np.testing.assert_allclose(lanes.shrinkage, [0.1, 0.1])


UNKNOWN = {
    "optax": (optax.adamw(0.1), "ScaleByAdamState says nothing"),
    "clipped": (optax.chain(optax.clip(1.0), adabelief(0.1)), "EmptyState says"),
    "held": (optimizers.lawn(adabelief(0.1), free_steps=9), "ConstrainState says"),
    "cautious": (adabelief(0.1, decay="cautious"), "DescendState says nothing"),
    "masked": (adabelief(0.1, weight_decay_mask=lambda w: True), "DescendState says"),
    "projected": (optimizers.adamp(0.1, weight_decay=0.1), "ScaleByAdamPState says"),
    "accumulated": (
        optax.MultiSteps(adabelief(0.1), 2).gradient_transformation(),
        "MultiStepsState says nothing",
    ),
    "no step": (optax.chain(mine(0.9)), "says momentum, and where"),
    "two steps": (
        optax.chain(mine(0.9), descend(0.1), descend(0.2)),
        "momentum, shrinkage, shrinkage, and",
    ),
    "decay first": (optax.chain(descend(0.1), mine(0.9)), "says shrinkage, momentum"),
    "without a state": (
        optax.chain(
            mine(0.9),
            optax.GradientTransformation(lambda w: (), lambda g, s, w: (g, s)),
            descend(0.1),
        ),
        "tuple says nothing",
    ),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_an_optimizer_of_which_a_part_is_silent_is_refused_by_name(name):
    optimizer, words = UNKNOWN[name]
    with jax.numpy_dtype_promotion("standard"), pytest.raises(LookupError, match=words):
        of(optimizer)
