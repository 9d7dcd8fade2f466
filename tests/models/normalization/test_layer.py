"""LayerNorm: its row of the contract, and what it is made of."""

import jax.numpy as jnp
import numpy as np
from flax import nnx

from gnomon.models.normalization import LayerNorm, RMSNorm


def definition(x, *, scale, bias, train):
    centered = x - x.mean(-1, keepdims=True)
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-6)
    return centered / deviation * np.asarray(scale) + np.asarray(bias)


CONTRACT = {
    "norm": LayerNorm,
    "definition": definition,
    "invariances": ["row_scale", "row_shift"],
}


def test_it_is_the_rms_norm_of_the_centered_row():
    x = jnp.asarray(np.random.default_rng(0).normal(3.0, 2.0, (4, 16)), jnp.float32)
    layer, rms = (norm(16, rngs=nnx.Rngs(0)) for norm in (LayerNorm, RMSNorm))
    centered = x - jnp.mean(x, -1, keepdims=True)
    np.testing.assert_allclose(
        layer(x, train=False), rms(centered, train=False), atol=1e-5
    )


def test_a_constant_row_gives_the_bias():
    norm = LayerNorm(4, rngs=nnx.Rngs(0))
    norm.bias[...] = jnp.arange(4.0)
    y = norm(jnp.full((2, 4), 7.0), train=False)
    np.testing.assert_array_equal(y, np.tile(np.arange(4.0), (2, 1)))
