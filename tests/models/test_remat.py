"""Rematerialization: the same gradients, and less kept for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.models import ResNet, TransformerLM, functional

TOKENS = np.arange(2 * 16, dtype=np.int32).reshape(2, 16) % 32
LM = dict(vocab=32, width=8, depth=2, head_dim=4)
IMAGES = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)


def loss_of(model, inputs, **changes):
    net = functional(model, **changes)
    params, stats = net.init(jax.random.key(0))

    def loss(params):
        outputs, new = net.apply(params, stats, inputs, train=True)
        return jnp.mean(jnp.square(outputs)), new

    return loss, params


def compiled(model, inputs, **changes):
    loss, params = loss_of(model, inputs, **changes)
    gradient = jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params).compile()
    return gradient(params), gradient.memory_analysis().temp_size_in_bytes


def assert_equal(found, wanted):
    for x, y in zip(*map(jax.tree.leaves, (found, wanted)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5 * np.abs(y).max())


def test_gradients_stay_and_memory_falls():
    inputs = np.arange(8 * 64, dtype=np.int32).reshape(8, 64) % 32
    sizes = dict(vocab=32, width=16, depth=4, head_dim=8, scan=True)
    (wanted, much), (found, little) = (
        compiled(TransformerLM, inputs, **sizes, remat=remat)
        for remat in ("none", "full")
    )
    assert_equal(found, wanted)
    assert little < 0.5 * much


def test_gradients_of_layers_one_by_one():
    wanted, _ = compiled(TransformerLM, TOKENS, **LM)
    found, _ = compiled(TransformerLM, TOKENS, **LM, remat="projections")
    assert_equal(found, wanted)


def test_statistics_pass_through():
    wanted, _ = compiled(ResNet, IMAGES, width=4, blocks=(1,))
    found, _ = compiled(ResNet, IMAGES, width=4, blocks=(1,), remat="full")
    assert_equal(found, wanted)
    assert jax.tree.leaves(found[0][1])


def kept(remat, scan):
    """Bytes that the backward pass is given by the forward pass."""
    loss, params = loss_of(TransformerLM, TOKENS, **LM, scan=scan, remat=remat)
    _, pull = jax.eval_shape(lambda w: jax.vjp(lambda w: loss(w)[0], w), params)
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(pull))


@pytest.mark.parametrize("scan", [False, True])
def test_less_is_kept(scan):
    everything, projections, full = (
        kept(remat, scan) for remat in ("none", "projections", "full")
    )
    dots = kept("dots", scan)
    assert full < projections < dots < everything
    assert full < 0.5 * everything


def test_activations_are_seen_through():
    nets = [functional(TransformerLM, **LM, remat=remat) for remat in ("none", "full")]
    params, _ = nets[0].init(jax.random.key(0))
    plain, full = (net.activations(params, {}, TOKENS, train=True) for net in nets)
    assert plain.keys() == full.keys() != set()


def test_unknown_names_are_refused():
    with pytest.raises(
        ValueError, match="remat: 'ful' is unknown; did you mean 'full'"
    ):
        functional(TransformerLM, **LM, remat="ful")
