"""Probes of all tiers give the same sharded, mapped, scanned, and of bfloat16."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon import dynamics

SHAPES = {"bias": (8,), "first/kernel": (8, 8), "second/kernel": (8, 8)}
SPEC = {"bias": {0: "h"}, "first": {1: "h"}, "second": {0: "h"}}


def forward(params, inputs):
    w = jax.tree.map(lambda x: x.astype(jnp.float32), params)
    hidden = jnp.tanh(inputs @ w["first/kernel"] + w["bias"][None])
    return hidden, hidden @ w["second/kernel"]


def batch_loss(params, batch):
    return jnp.mean(jnp.square(forward(params, batch["x"])[1] - batch["y"]))


def trace(params, other, batch):
    operator = dynamics.hessian_operator(lambda p: batch_loss(p, batch), params)
    return (
        dynamics.hutchinson_trace(operator, params, samples=2),
        dynamics.hutch_plus_plus_trace(operator, params, samples=3),
    )


def spectrum(params, other, batch):
    return dynamics.hessian_spectrum(
        lambda p: batch_loss(p, batch), params, iterations=4, samples=1
    )


def landscape(params, other, batch):
    direction = dynamics.filter_direction(jax.random.key(1), params)
    return (
        dynamics.loss_line(lambda p: batch_loss(p, batch), params, direction, [0.3]),
        dynamics.linear_barrier(
            lambda p: batch_loss(p, batch), params, other, points=4
        ),
    )


def matching(params, other, batch):
    found = dynamics.weight_matching(params, other, SPEC)
    return found.permutations, found.distance


def pruning(params, other, batch):
    def loss_fn(params, example):
        return batch_loss(params, jax.tree.map(lambda x: x[None], example))

    logits = forward(params, batch["x"])[1]
    return (
        dynamics.grand_scores(loss_fn, params, batch),
        dynamics.el2n_scores(logits, jnp.argmax(batch["y"], axis=1)),
    )


def noise(params, other, batch):
    groups, _ = dynamics.group_gradients(batch_loss, params, batch, 4)
    return dynamics.noise_scale(groups, 4)


def singular(params, other, batch):
    layers = dynamics.layers_of(params)
    vectors = dynamics.start_vectors(params, layers)
    return (
        dynamics.spectral_norms(params, vectors, layers)[0],
        dynamics.gradient_ranks(other, layers),
    )


def activations(params, other, batch):
    return dynamics.activations(forward(params, batch["x"])[0])


@pytest.fixture(scope="module")
def pair():
    """Two of all that the probes take: nets, other nets, and batches."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        # Representable in bfloat16, so that the narrow trees hold the same numbers.
        return jnp.asarray(rng.normal(size=(2, *shape)), jnp.bfloat16)

    nets = [{name: draw(*shape) / 2 for name, shape in SHAPES.items()} for _ in "ab"]
    batch = {"x": draw(16, 8), "y": draw(16, 8)}
    return jax.tree.map(lambda x: x.astype(jnp.float32), (*nets, batch))


def halves(pair):
    return (jax.tree.map(lambda x, i=i: x[i], pair) for i in range(2))


@pytest.mark.parametrize(
    "probe",
    [trace, spectrum, landscape, matching, pruning, noise, singular, activations],
    ids=lambda probe: probe.__name__,
)
def test_sharded_on_eight_devices_and_of_bfloat16_weights(pair, probe):
    first, _ = halves(pair)
    look = jax.jit(probe)
    alone = look(*first)
    assert any(np.isfinite(x).any() for x in jax.tree.leaves(alone))
    *nets, batch = first
    if probe is not noise:  # its gradients are rounded; it has a test of its own
        nets = jax.tree.map(lambda x: x.astype(jnp.bfloat16), nets)
    mesh = jax.make_mesh((8,), ("x",), (jax.sharding.AxisType.Auto,))
    same(look(*jax.device_put((*nets, batch), NamedSharding(mesh, P("x")))), alone)


@pytest.mark.parametrize(
    "probe",
    [landscape, pruning, noise, singular, activations],
    ids=lambda probe: probe.__name__,
)
def test_a_scan_of_a_vmap_equals_a_loop(pair, probe):
    """The others have this in tests of their own."""
    nested = jax.tree.map(lambda x: x[None], pair)
    mapped = jax.vmap(probe)
    _, scanned = jax.lax.scan(lambda _, x: (None, mapped(*x)), None, nested)
    look = jax.jit(probe)
    loop = jax.tree.map(lambda *x: np.stack(x)[None], *(look(*h) for h in halves(pair)))
    same(scanned, loop)


def same(found, expected):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        found,
        expected,
    )
