"""Chunked logits: the loss and the gradients of the plain ones, in less memory."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.extend.core import jaxprs_in_params

from gnomon.experiments.tasks import next_token
from gnomon.experiments.trial.probes import sizes
from gnomon.models import TransformerLM, functional

# Eleven positions in chunks of four: the last chunk is filled up.
BATCH, LENGTH, VOCAB, CHUNK = 3, 11, 64, 4
RNG = np.random.default_rng(0)
TOKENS = RNG.integers(0, VOCAB, (BATCH, LENGTH + 1)).astype(np.int32)
SIZES = dict(vocab=VOCAB, width=8, depth=1, head_dim=4)


def losses(**changes):
    """``params -> loss`` in chunks and plainly, and the parameters."""
    lazy, plain = (
        functional(TransformerLM, **SIZES, **changes, logits_chunk=chunk)
        for chunk in (CHUNK, None)
    )

    def loss_of(net):
        def loss(params):
            apply = lambda x: net.apply(params, {}, x, train=True)[0]  # noqa: E731
            return next_token(apply, {"tokens": TOKENS})[0]

        return loss

    return loss_of(lazy), loss_of(plain), plain.init(jax.random.key(0))[0]


@pytest.mark.parametrize(
    "changes",
    [
        dict(dtype="float64", param_dtype="float64"),
        dict(tied=False, base_width=4, dtype="float64", param_dtype="float64"),
    ],
)
def test_loss_and_gradients_are_those_of_plain_logits(changes, x64):
    lazy, plain, params = losses(**changes)
    found, wanted = (
        jax.jit(jax.value_and_grad(loss))(params) for loss in (lazy, plain)
    )
    # next_token takes the logarithm of plain logits in float32.
    assert_near(found, wanted, 3e-7)


def test_chunks_in_bfloat16_are_as_near_as_their_products():
    lazy, plain, params = losses(dtype="bfloat16")
    exact = losses()[1]
    found, wanted, right = (
        jax.jit(jax.value_and_grad(loss))(params) for loss in (lazy, plain, exact)
    )
    gaps = [
        [float(jnp.linalg.norm(jnp.ravel(x - y))) for x, y in zip(a, b, strict=True)]
        for a, b in (map(jax.tree.leaves, (f, right)) for f in (found, wanted))
    ]
    assert all(
        chunked < 1.5 * whole + 1e-3 for chunked, whole in zip(*gaps, strict=True)
    )
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype("float32")}


def assert_near(found, wanted, tolerance):
    for x, y in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(x, y, atol=tolerance * np.abs(y).max())


def arrays(jaxpr):
    """The shapes of all that a program computes, inner programs included."""
    for eqn in jaxpr.eqns:
        yield from (v.aval.shape for v in eqn.outvars)
        for inner in jaxprs_in_params(eqn.params):
            yield from arrays(inner)


def test_no_array_has_an_entry_for_each_token_and_word():
    *both, params = losses()
    largest = [
        max(math.prod(shape) for shape in arrays(jax.make_jaxpr(f)(params).jaxpr))
        for f in map(jax.grad, both)
    ]
    assert largest[1] == BATCH * LENGTH * VOCAB
    assert largest[0] < BATCH * LENGTH * VOCAB


def test_weights_and_rows():
    net = functional(TransformerLM, **SIZES, logits_chunk=CHUNK)
    params, _ = net.init(jax.random.key(0))
    logits, _ = net.apply(params, {}, TOKENS[:, :-1], train=False)
    weights = RNG.integers(0, 2, (BATCH, LENGTH)).astype(np.float32)
    labels = TOKENS[:, 1:]
    each = optax.softmax_cross_entropy_with_integer_labels(logits.dense(), labels)
    found = logits.cross_entropy(labels, weights)
    np.testing.assert_allclose(found, np.average(each, weights=weights), rtol=1e-6)
    assert logits.cross_entropy(labels, 0 * weights) == 0
    for x, y in zip(sizes(logits), sizes(logits.dense()), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-6)


def test_curvature_goes_through(x64):
    lazy, plain, params = losses(dtype="float64", param_dtype="float64")
    ones = jax.tree.map(jnp.ones_like, params)
    found, wanted = (
        jax.jit(lambda w, f=f: jax.jvp(jax.grad(f), (w,), (ones,))[1])(params)
        for f in (lazy, plain)
    )
    assert_near(found, wanted, 1e-5)
