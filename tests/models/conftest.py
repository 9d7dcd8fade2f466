"""Helpers shared by the models' tests."""

import functools

import jax
import jax.numpy as jnp
import pytest

from gnomon.models import functional


@functools.cache
def _build(model, **kwargs):
    net = functional(model, **kwargs)
    params, stats = jax.device_get(jax.jit(net.init)(jax.random.key(0)))
    return jax.jit(net.apply, static_argnames="train"), params, stats


@pytest.fixture
def build():
    """`build(model, **kwargs) -> (apply, params, stats)`, compiled once a session."""
    return _build


@pytest.fixture
def cross_entropy():
    """Mean negative log likelihood of integer labels."""

    def cross_entropy(logits, labels):
        log_probs = jax.nn.log_softmax(logits)
        return -jnp.mean(jnp.take_along_axis(log_probs, labels[..., None], axis=-1))

    return cross_entropy


@pytest.fixture
def fit():
    """`fit(loss, params, steps, rate) -> losses`, in one compiled loop.

    The rule is sign descent with momentum, the rate falling linearly to zero: it
    needs no tuning to the scale of a model's gradients.
    """

    def fit(loss, params, steps, rate):
        def step(carry, rate):
            params, momentum = carry
            value, grads = jax.value_and_grad(loss)(params)
            momentum = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, momentum, grads)
            params = jax.tree.map(lambda p, m: p - rate * jnp.sign(m), params, momentum)
            return (params, momentum), value

        zeros = jax.tree.map(jnp.zeros_like, params)
        rates = jnp.linspace(rate, 0, steps)
        return jax.jit(lambda *args: jax.lax.scan(step, *args)[1])(
            (params, zeros), rates
        )

    return fit
