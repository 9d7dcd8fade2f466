"""States are ordinary: of every transform, and every wrapper around several."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from gnomon import dynamics


def tree():
    generator = np.random.default_rng(0)

    def draw(*shape):
        return jnp.asarray(generator.normal(size=shape), "float32")

    return {
        "embed": {"embedding": draw(8, 4)},
        "head": {"kernel": draw(4, 2)},
        "layers_0": {"kernel": draw(8, 4), "bias": draw(4)},
    }


def loss(params):
    return sum((leaf**2).sum() for leaf in jax.tree.leaves(params))


def step(transform, params, state):
    grads = params  # of half the loss
    extra = dict(value=loss(params), grad=grads, obj_fn=loss)
    updates, state = transform.update(grads, state, params, **extra)
    return optax.apply_updates(params, updates), state


def layout(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype, x.weak_type), tree)


def test_states_are_ordinary(transform):
    check(transform, tree)


@pytest.mark.parametrize(
    "inner", [optax.adam(0.1), optax.identity()], ids=["adam", "no state"]
)
def test_states_of_probes_are_ordinary(inner):
    with jax.numpy_dtype_promotion("standard"):
        check(dynamics.measure(inner), tree)


def test_placeholders_of_states_of_layers(wrapper):
    """Of what is shown the layers of a stack one by one."""
    stacked = {"blocks": {"stacked": {"kernel": jnp.ones((2, 4, 3))}}}
    for inner in (optax.lamb, optax.adamw):
        transform = wrapper.around(inner)
        state = jax.eval_shape(transform.init, stacked)
        mapped = optax.tree.map_params(transform, lambda leaf: leaf, state)
        assert jax.tree.structure(mapped) == jax.tree.structure(state)


def are_matrices(tree):
    return jax.tree.map(lambda leaf: leaf.ndim > 1, tree)


MASKED = {
    "muon": optax.contrib.muon,
    "masked": lambda rate: optax.masked(optax.adam(rate), are_matrices),
}


@pytest.mark.parametrize("inner", MASKED)
def test_placeholders_of_states_with_masked_nodes(wrapper, inner):
    """Of inner optimizers that see a part of what the wrapper shows them."""
    transform = wrapper.around(MASKED[inner])
    state = jax.eval_shape(transform.init, tree())
    mapped = optax.tree.map_params(transform, lambda leaf: leaf, state)
    assert jax.tree.structure(mapped) == jax.tree.structure(state)
    assert jax.tree.leaves(mapped) == jax.tree.leaves(state)


def check(transform, tree):
    params = tree()
    state = transform.init(params)
    mapped = optax.tree.map_params(transform, lambda leaf: leaf, state)
    jax.tree.map(np.testing.assert_array_equal, mapped, state)

    # As a loop's carry, and in lanes.
    wanted = layout(jax.eval_shape(lambda: state))
    moved = jax.eval_shape(lambda p, s: step(transform, p, s), params, state)
    assert layout(moved[1]) == wanted
    lanes = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    both = jax.eval_shape(jax.vmap(transform.init), lanes)
    jax.eval_shape(jax.vmap(lambda p, s: step(transform, p, s)), lanes, both)

    # From shapes alone.
    shapes = jax.eval_shape(tree)
    assert layout(jax.eval_shape(transform.init, shapes)) == wanted
    abstract = jax.tree.map(lambda x: (x.shape, x.dtype), transform.init(shapes))
    assert abstract == jax.tree.map(lambda x: (x.shape, x.dtype), state)

    # The first step may reuse the memory of what it is given; after it the state goes
    # through a file, leaf by leaf.
    donating = jax.jit(lambda p, s: step(transform, p, s), donate_argnums=(0, 1))
    params, state = donating(params, state)
    leaves, treedef = jax.tree.flatten((params, state))
    saved = [np.array(leaf) for leaf in leaves]
    going_on = donating(params, state)
    restored = donating(*treedef.unflatten([jnp.array(leaf) for leaf in saved]))
    jax.tree.map(np.testing.assert_array_equal, restored, going_on)


def test_shardings_in_types_are_kept(transform):
    mesh = jax.make_mesh((4, 2), ("data", "model"), axis_types=(AxisType.Explicit,) * 2)
    with jax.set_mesh(mesh):
        params = tree()
        spec = PartitionSpec("data", "model")
        for name, leaf in (("embed", "embedding"), ("layers_0", "kernel")):
            params[name][leaf] = jax.device_put(params[name][leaf], spec)
        state = jax.eval_shape(transform.init, params)
        moved, _ = jax.eval_shape(lambda p, s: step(transform, p, s), params, state)
    for leaf in jax.tree.leaves(moved):
        if leaf.shape == (8, 4):
            assert leaf.sharding.spec == spec
