"""Hidden matrices are what a network multiplies by, inside."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.optimizers.matrices import hidden_matrices
from gnomon_contract.layers import NAMED, check

LAYERS = {"hidden_matrices": None}  # in a test of its own, the last


def leaf(*shape):
    return jnp.zeros(shape)


def test_each_kind_of_leaf():
    numbers = hidden_matrices(
        {
            "embed": {"embedding": leaf(16, 4)},
            "block": {
                "query": {"kernel": leaf(4, 2, 3), "bias": leaf(2, 3)},
                "out": {"kernel": leaf(2, 3, 4)},
                "up": {"kernel": leaf(4, 8), "bias": leaf(8)},
                "conv": {"kernel": leaf(3, 3, 4, 8)},
                "norm": {"scale": leaf(4)},
            },
            "head": {"kernel": leaf(4, 16)},
        }
    )
    block = numbers["block"]
    assert numbers["embed"]["embedding"] is None
    assert numbers["head"]["kernel"] is None
    assert block["norm"]["scale"] is block["up"]["bias"] is None
    assert block["query"]["bias"] is None
    assert block["query"]["kernel"] == ((0,), (1, 2))
    assert block["out"]["kernel"] == ((0, 1), (2,))
    assert block["up"]["kernel"] == ((0,), (1,))
    assert block["conv"]["kernel"] == ((0, 1, 2), (3,))


def test_muon_orthogonalizes_all_heads_together():
    """The update of a query kernel is one matrix with singular values near one."""
    key = jax.random.key(0)
    params = {"query": {"kernel": jax.random.normal(key, (8, 2, 3))}}
    muon = optax.contrib.muon(
        1.0, nesterov=False, muon_weight_dimension_numbers=hidden_matrices
    )
    with jax.numpy_dtype_promotion("standard"):  # optax: a float to an int32 count
        update, _ = muon.update(params, muon.init(params), params)
    matrix = np.asarray(update["query"]["kernel"]).reshape(8, 6)
    values = np.linalg.svd(matrix, compute_uv=False)
    assert values.min() > 0.6
    assert values.max() < 1.3


def test_stacked_layers():
    """The axis of layers is a batch of Muon's, and its updates those of a list."""

    def muon(**declared):
        numbers = functools.partial(hidden_matrices, **declared)
        return optax.contrib.muon(
            0.1, consistent_rms=0.2, muon_weight_dimension_numbers=numbers
        )

    assert hidden_matrices(NAMED)["blocks"]["stacked"]["query"]["kernel"] == (
        (1,),
        (2, 3),
    )
    check(muon, explicit=True, rtol=1e-4)
