"""Draws in the shape of the parameters."""

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.optimizers.mechanisms.draws import draw


def test_a_stack_gets_the_numbers_of_a_list_of_layers():
    """Of more than ten, whose names sort otherwise than they count."""
    blocks = [{"kernel": jnp.zeros(2)} for _ in range(12)]
    stack = {"stacked": {"kernel": jnp.zeros((12, 2))}}
    key, head = jax.random.key(0), jnp.zeros(2)
    listed = draw(key, {"blocks": blocks, "head": head}, jax.random.normal)
    stacked = draw(key, {"blocks": stack, "head": head}, jax.random.normal)
    wanted = jnp.stack([block["kernel"] for block in listed["blocks"]])
    np.testing.assert_array_equal(stacked["blocks"]["stacked"]["kernel"], wanted)
    np.testing.assert_array_equal(stacked["head"], listed["head"])
    assert len(np.unique(np.append(wanted, listed["head"]))) == 26
