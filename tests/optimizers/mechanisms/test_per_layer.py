"""per_layer: what it hands down is a list of layers, what it keeps are stacks."""

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers import per_layer
from gnomon_contract.layers import DEPTH, NAMED, by_rank

LAYERS = {"per_layer": lambda i, **s: per_layer(i, **s)}


def test_states_are_shaped_like_the_parameters():
    """Also those of what sees the layers one by one: shardings and checkpoints fit."""
    params = jax.tree.map(jnp.asarray, NAMED)
    chain = optax.chain(optax.clip(1.0), optax.masked(optax.lamb(0.1), by_rank))
    optimizer = per_layer(chain)
    state = optimizer.init(params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(state)]
    assert shapes.count((DEPTH, 4, 2, 3)) == 2
    mapped = optax.tree.map_params(optimizer, lambda leaf: leaf + 1, state)
    assert jax.tree.structure(mapped) == jax.tree.structure(state)
