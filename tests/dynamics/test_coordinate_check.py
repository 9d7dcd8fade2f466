"""Coordinates of a two-layer network by width, with and without muP."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import optimizers
from gnomon.dynamics import Subject, coordinate_check, width_exponents
from gnomon.models import MLP, functional

WIDTHS = (32, 96, 256)


@pytest.fixture
def check():
    """``check(optimizer, mup)``: a few steps of a classifier on 32 points, float32.

    Under muP the readout starts at zero, as its paper recommends: what a random one
    computes at first is gone in an infinite network and matters in a narrow one.
    ``optimizer(base)`` makes the optimizer from the parameters at width 32.
    """
    inputs = jax.random.normal(jax.random.key(7), (32, 10))
    labels = jnp.argmax(inputs[:, :4], axis=1)  # something to learn

    def network(width):
        return functional(MLP, inputs=10, widths=(width, width), classes=4)

    def run(optimizer, *, mup):
        base = network(WIDTHS[0])

        def build(width):
            net = network(width)

            def init(key):
                params, _ = net.init(key)
                if not mup:
                    return params
                params = optimizers.mup_initialization(params, base.init(key)[0])
                return {**params, "head": jax.tree.map(jnp.zeros_like, params["head"])}

            def outputs(params):
                return net.apply(params, {}, inputs, train=True)[0]

            def activations(params):
                return net.activations(params, {}, inputs, train=True)

            def loss(params):
                losses = optax.softmax_cross_entropy_with_integer_labels(
                    outputs(params), labels
                )
                return losses.mean()

            shapes = jax.eval_shape(lambda: base.init(jax.random.key(0))[0])
            return Subject(init, loss, activations, optimizer(shapes))

        return coordinate_check(build, WIDTHS, steps=2, seeds=2)

    return run


def test_one_rate_for_all_layers_blows_up_with_width(check):
    """Sign descent, Adam without memory, moves every weight by the rate; sums over the
    width add up."""
    rate = 3e-3
    seen = check(
        lambda base: optax.chain(optax.scale_by_sign(), optax.scale(-rate)),
        mup=False,
    )
    assert seen.names == ("head", "hidden/0", "hidden/1")
    head, first, second = seen.change_exponent[:, -1]
    assert head > 0.5
    assert second > 0.5
    assert abs(first) < 0.15
    # At the start nothing is wrong.
    assert np.all(abs(seen.size_exponent[:, 0]) < 0.15)
    assert np.isnan(seen.change_exponent[:, 0]).all()


@pytest.mark.parametrize(("kind", "rate"), [("adam", 3e-3), ("sgd", 0.1)])
def test_under_mup_what_training_changes_does_not_depend_on_width(check, kind, rate):
    inner = optax.sign_sgd(rate) if kind == "adam" else optax.sgd(rate)
    seen = check(lambda base: optimizers.mup(inner, base, kind=kind), mup=True)
    # The first step moves the readout alone: no gradient passes one of zeros.
    assert np.all(abs(seen.change_exponent[:, 2:]) < 0.15)
    assert np.all(seen.change[:, 2:] > 0)
    assert np.all(seen.size[0, 0] == 0)


def test_exponents_of_exact_powers():
    widths = np.array([8, 16, 64])
    sizes = np.stack([3.0 * widths**0.5, widths**-1.0, [1.0, 0.0, 1.0]])
    found = width_exponents(widths, sizes)
    np.testing.assert_allclose(found[:2], [0.5, -1.0], rtol=1e-12)
    assert np.isnan(found[2])


def test_bad_questions_are_refused():
    def build(width):
        name = "a" if width == 8 else "b"
        return Subject(
            lambda key: jnp.zeros(width),
            lambda w: w.sum(),
            lambda w: {name: w},
            optax.sgd(0.1),
        )

    with pytest.raises(ValueError, match="two widths or more"):
        coordinate_check(build, (8, 8))
    with pytest.raises(ValueError, match=r"build: \['a', 'b'\] are activations"):
        coordinate_check(build, (8, 16), steps=1, seeds=1)
