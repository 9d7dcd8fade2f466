"""Centralized and standardized gradients: optax's by outputs, and NumPy's moments."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gnomon.optimizers import centralize_units, standardize_gradients
from gnomon_contract import Verified

VERIFIED = {
    "centralize_units": Verified("A10", "optax 0.2.8", 1e-6),
    "standardize_gradients": Verified("A10", "NumPy", 1e-12),
}


def test_is_optax_on_kernels_with_outputs_first():
    generator = np.random.default_rng(0)
    shapes = {"a": (2, 3, 4, 5), "b": (6, 4)}
    g = {n: {"kernel": generator.normal(size=s)} for n, s in shapes.items()}
    g = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), g) | {"bias": jnp.ones(3)}
    centralize = centralize_units()
    found, _ = centralize.update(g, centralize.init(g))
    turned = jax.tree.map(lambda x: jnp.moveaxis(x, -1, 0), g)
    wanted, _ = optax.centralize().update(turned, optax.EmptyState())
    within = VERIFIED["centralize_units"].within
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            jnp.moveaxis(a, -1, 0), b, rtol=0, atol=within
        ),
        found,
        wanted,
    )
    np.testing.assert_array_equal(found["bias"], 1.0)


def test_the_deviation_is_that_of_numpy_layer_by_layer(x64):
    g = np.random.default_rng(0).normal(3.0, size=(2, 4, 3)) * [[[1.0]], [[50.0]]]
    spread = standardize_gradients(0.1, stacked="blocks")
    tree = {"blocks": jnp.asarray(g)}
    found, _ = spread.update(tree, spread.init(tree))
    wanted = [x / (x.std(ddof=1) + 0.1) for x in g]
    within = VERIFIED["standardize_gradients"].within
    np.testing.assert_allclose(found["blocks"], wanted, rtol=0, atol=within)


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_what_has_no_spread(eps):
    g = {"pair": jnp.array([1.0, 5.0]), "flat": jnp.zeros(4), "one": jnp.float32(3)}
    spread = standardize_gradients(eps)
    found, _ = spread.update(g, spread.init(g))
    jax.tree.map(np.testing.assert_array_equal, found, g)
