"""What a probe finds of stacked layers is what it finds of a list of layers.

Every public name of the room is in one of the tables: a new one without a row fails.
"""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon import dynamics as d
from gnomon.models import TransformerLM, functional
from gnomon.parameters.stacks import unstack

SMALL = dict(vocab=8, width=8, depth=2, head_dim=4, mlp_ratio=2)
TOKENS = jnp.arange(24).reshape(4, 6) % 8


def compiled(model):
    """One program for each use of a model, in place of one for each operation."""
    return model._replace(
        init=jax.jit(model.init),
        apply=jax.jit(model.apply, static_argnames="train"),
        activations=jax.jit(model.activations, static_argnames="train"),
    )


class Case:
    """A model, its weights, an update and a loss, in one layout."""

    def __init__(self, scan):
        self.model = compiled(functional(TransformerLM, **SMALL, scan=scan))
        self.params, _ = self.model.init(jax.random.key(0))
        self.updates = jax.tree.map(lambda w: 0.1 * jnp.cos(20 * w) * w, self.params)
        self.grads = jax.grad(self.loss)(self.params, TOKENS)
        self.layers = d.layers_of(self.params)

    def loss(self, params, tokens):
        logits, _ = self.model.apply(params, {}, tokens, train=True)
        return jnp.mean(jnp.sin(logits) ** 2)

    def value(self, params):
        return self.loss(params, TOKENS)

    def at(self, **arrays):
        """The same with other arrays, those of a program."""
        other = copy.copy(self)
        other.__dict__.update(arrays)
        return other


@pytest.fixture(scope="module")
def cases():
    return Case(False), Case(True)


def spectral_norms(c):
    vectors = d.start_vectors(c.params, c.layers)
    return c.layers.names, d.spectral_norms(c.params, vectors, c.layers)


def motion(c):
    how = dict(start=c.updates, learning_rate=0.1)
    return d.layer_motion(c.params, c.updates, c.grads, **how)


def noise(c):
    compared, mean = d.group_gradients(c.loss, c.params, TOKENS, 2)
    return d.noise_scale(d.pool(compared, c.layers), 2), unstack(mean)


def measured(c):
    optimizer = d.measure(optax.sgd(0.1), learning_rate=0.1)
    state = optimizer.init(c.params)
    _, state = optimizer.update(c.grads, state, c.params)
    return d.records(state), d.mean_gradient_cosines(state)


def permuted(c):
    spec = {"1/mlp/up": {1: "h"}, "1/mlp/down": {0: "h"}}
    other = d.permute(c.params, {"h": jnp.arange(16)[::-1]}, spec)
    found = d.weight_matching(c.params, other, spec)
    return unstack(other), found._replace(params=unstack(found.params))


def seen(c):
    outputs = c.model.activations(c.params, {}, TOKENS, train=True)
    return outputs, d.layer_activations(outputs, c.layers)


def ramps(shapes):
    """Weights that are no draws, whose program takes long to compile; in any layout."""

    def ramp(shape, scale):
        return scale * jnp.cos(jnp.arange(np.prod(shape))).reshape(shape)

    def layers(tree, scale):
        return jax.tree.map(lambda x: ramp(x.shape, scale), tree)

    def layer(i):
        return jax.tree.map(lambda x: ramp(x.shape[1:], 0.5 + i), blocks["stacked"])

    blocks = shapes["blocks"]
    weights = layers({**shapes, "blocks": {}}, 0.5)
    if "stacked" in blocks:
        both = jax.tree.map(lambda *leaves: jnp.stack(leaves), layer(0), layer(1))
        return weights | {"blocks": {"stacked": both}}
    each = {name: layers(blocks[name], 0.5 + int(name)) for name in blocks}
    return weights | {"blocks": each}


def checked(c):
    def build(width):
        model = compiled(
            functional(
                TransformerLM,
                **SMALL | dict(width=width),
                scan="stacked" in c.params["blocks"],
            )
        )

        def loss(params):
            return jnp.mean(model.apply(params, {}, TOKENS, train=True)[0] ** 2)

        return d.Subject(
            lambda key: ramps(jax.eval_shape(model.init, key)[0]),
            loss,
            lambda params: model.activations(params, {}, TOKENS, train=True),
            optax.sgd(0.1),
        )

    return d.coordinate_check(build, (4, 8), steps=1, seeds=1)


def landscape(c):
    first, second = (d.filter_direction(jax.random.key(i), c.params) for i in (0, 1))
    plane = d.loss_plane(c.value, c.params, first, second, [0.0, 0.1], [0.0, 0.2])
    line = d.loss_line(c.value, c.params, first, [0.1])
    middle = d.interpolate(c.params, first, 0.5)
    barrier = d.linear_barrier(c.value, c.params, first, points=3)
    return unstack(first), plane, line, unstack(middle), barrier._replace(position=0)


def curvature(c, raveled=True):
    how = dict(iterations=4, raveled=raveled)
    pairs = d.top_eigenpairs(c.value, c.params, k=1, **how)
    return d.top_eigenvalues(c.value, c.params, k=1, **how), pairs.values


def spectrum(c):
    return d.hessian_spectrum(c.value, c.params, iterations=4, samples=1)


def traces(c):
    operator = d.hessian_operator(c.value, c.params)
    return (
        d.hutchinson_trace(operator, c.params, samples=2),
        d.hutch_plus_plus_trace(operator, c.params, samples=3),
    )


def products(c):
    state = optax.adam(0.1).init(c.params)
    denominator = d.adam_denominator(state)
    product = d.hessian_vector_product(c.value, c.params, c.updates)
    return unstack(denominator), unstack(product)


def scores(c):
    return d.grand_scores(lambda p, x: c.loss(p, x[None]), c.params, TOKENS)


ROWS = {
    spectral_norms: "spectral_norms start_vectors layers_of largest_singular_value",
    lambda c: d.gradient_ranks(c.grads, c.layers): "gradient_ranks rank as_matrix",
    motion: "layer_motion leaf_sums motion",
    noise: "group_gradients compare_groups noise_scale pool",
    measured: "measure records mean_gradient_cosines",
    permuted: "permute weight_matching",
    seen: "layer_activations activations",
    checked: "coordinate_check width_exponents",
    landscape: "filter_direction loss_plane loss_line interpolate linear_barrier",
    curvature: "top_eigenvalues top_eigenpairs lanczos ritz ritz_vectors",
    spectrum: "hessian_spectrum lanczos_quadrature density",
    traces: "hutchinson_trace hutch_plus_plus_trace hessian_operator",
    products: "adam_denominator hessian_vector_product",
    scores: "grand_scores",
    lambda c: d.lipschitz_bound(c.params): "lipschitz_bound",
}
# Functions of numbers, of outputs, of one matrix, of names; records are classes.
OTHERS = """ALL batch_cost conv_gram_bound el2n_scores equilibrium equilibrium_angle
    gram_bound heavy_ball_optimum keep_mask logits mlp_spec name_of named parse
    rule_of singular_alignment stability_ratio two_batch_noise_scale
    wasserstein_distance"""


def test_every_public_name_has_a_row():
    records = {name for name in d.__all__ if isinstance(getattr(d, name), type)}
    rows = {name for names in (*ROWS.values(), OTHERS) for name in names.split()}
    assert rows | records == set(d.__all__)


def in_one_program(probe, case):
    """What a probe finds, names too: a program an operation takes far longer."""
    if probe is checked:  # which compiles its own
        return probe(case)
    told = {}

    @jax.jit
    def arrays(given):
        leaves, told["structure"] = jax.tree.flatten(probe(case.at(**given)))
        told["names"] = {i: x for i, x in enumerate(leaves) if isinstance(x, str)}
        return [None if i in told["names"] else x for i, x in enumerate(leaves)]

    given = {name: getattr(case, name) for name in ("params", "updates", "grads")}
    leaves = [told["names"].get(i, x) for i, x in enumerate(arrays(given))]
    return told["structure"].unflatten(leaves)


@pytest.mark.parametrize("probe", ROWS, ids=lambda probe: ROWS[probe].split()[0])
def test_probes(probe, cases):
    wanted, found = (in_one_program(probe, case) for case in cases)
    names = functools.partial(jax.tree.map, lambda x: isinstance(x, str))
    assert jax.tree.structure(wanted) == jax.tree.structure(found)
    assert names(wanted) == names(found)
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        if isinstance(a, str):
            assert a == b
        else:
            np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-5)


def test_other_names_are_told(cases):
    """With ``stacked=``, from a tree whose names say nothing."""
    listed, named = cases
    told, grads, updates = (
        {**tree, "blocks": tree["blocks"]["stacked"]}
        for tree in (named.params, named.grads, named.updates)
    )
    layers = d.layers_of(told, stacked="^blocks/")
    assert layers.names == listed.layers.names
    vectors = d.start_vectors(told, layers)
    found = (
        d.spectral_norms(told, vectors, layers)[0],
        d.gradient_ranks(grads, layers),
        d.layer_motion(told, updates, grads, layers=layers),
    )
    wanted = (
        spectral_norms(listed)[1][0],
        d.gradient_ranks(listed.grads, listed.layers),
        d.layer_motion(listed.params, listed.updates, listed.grads),
    )
    for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(found), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5)
