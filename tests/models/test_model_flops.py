"""The FLOP formulas agree with what the compiler counts in the real program."""

import jax
import jax.numpy as jnp
import pytest

from gnomon.models import MLP, ResNet, TransformerLM, functional


def compiled_flops(function, *args):
    return jax.jit(function).lower(*args).compile().cost_analysis()["flops"]


def program(model, shape, dtype, batch, **kwargs):
    """A forward pass and its abstract arguments."""
    net = functional(model, **kwargs)
    params, stats = jax.eval_shape(net.init, jax.random.key(0))
    inputs = jax.ShapeDtypeStruct((batch, *shape), dtype)

    def forward(params, stats, inputs):
        return net.apply(params, stats, inputs, train=True)[0]

    return forward, (params, stats, inputs)


CASES = [
    (TransformerLM, (64,), jnp.uint8, {"width": 128, "depth": 2}),
    (TransformerLM, (32,), jnp.uint8, {"width": 128, "depth": 1, "mlp_ratio": 2}),
    (TransformerLM, (256,), jnp.uint8, {"width": 128, "depth": 1, "tied": False}),
    (MLP, (28, 28, 1), jnp.float32, {"inputs": 784, "widths": (256, 128)}),
    # Images of 64: the compiler leaves out products with the border's zeros, which
    # the formula counts; at this size they are 4 % of all.
    (ResNet, (64, 64, 1), jnp.float32, {"width": 16, "blocks": (1, 1, 1)}),
    (ResNet, (64, 64, 3), jnp.float32, {"blocks": (2, 1), "channels": 3}),
]


@pytest.mark.parametrize(("model", "shape", "dtype", "kwargs"), CASES)
def test_formula_is_within_ten_percent_of_the_compiled_forward_pass(
    model, shape, dtype, kwargs
):
    forward, args = program(model, shape, dtype, batch=2, **kwargs)
    formula = 2 * model.forward_flops(shape, **kwargs)
    assert formula == pytest.approx(compiled_flops(forward, *args), rel=0.1)


@pytest.mark.parametrize(
    ("case", "unneeded"),
    # An MLP's first layer needs no gradient with respect to the images.
    [(CASES[0], 0), (CASES[3], 2 * 784 * 256)],
)
def test_a_gradient_costs_three_forward_passes(case, unneeded):
    model, shape, dtype, kwargs = case
    forward, (params, stats, inputs) = program(model, shape, dtype, batch=16, **kwargs)

    def loss(params, stats, inputs):
        return jnp.mean(jnp.square(forward(params, stats, inputs)))

    formula = 16 * (3 * model.forward_flops(shape, **kwargs) - unneeded)
    flops = compiled_flops(jax.value_and_grad(loss), params, stats, inputs)
    assert formula == pytest.approx(flops, rel=0.1)


def test_scanning_and_heads_change_no_count():
    base = TransformerLM.forward_flops((64,), width=64, depth=3)
    same = {"scan": True, "head_dim": 16, "tied": False, "activation": "gelu"}
    assert TransformerLM.forward_flops((64,), width=64, depth=3, **same) == base
