"""Parameters that are stored in fewer bits than they are moved in.

    config.parameters = dict(dtype="bfloat16", rounding="stochastic")

halves the memory of the parameters: they are initialized in the dtype that the model
gives them, stored in bfloat16, and read as float32 by the model and the optimizer,
whose gradients, moments and sums are float32 as ever. What a step adds is rounded once,
when it is stored. An update below half the distance of two numbers of bfloat16, 0.2 to
0.4 % of a weight, is lost by rounding to nearest; rounding at random, up with the
probability of the distance that is covered, is right on average. The bits are made of
the trial's key, the step, and the number of the leaf, so that a run repeats.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gnomon.kernels.engine.rounding import store
from gnomon.optimizers.mechanisms.fused import leaf_keys

# Folded into the key of a step; micro-batches fold in their numbers, from 0.
_ROUNDING = 0x726F756E


def stores(config: Mapping) -> bool:
    """Whether parameters are stored in other numbers than they are moved in."""
    return bool(config.get("parameters", {}).get("dtype"))


def narrow(config: Mapping, params: Any, key: jax.Array | None = None) -> Any:
    """Parameters as they are stored.

    Args:
      config: the config.
      params: as they are moved.
      key: the key of the step, for rounding at random; None rounds to nearest.
    """
    if not stores(config):
        return params
    section = config["parameters"]
    if section.get("rounding") != "stochastic":
        key = None
    if key is not None:
        key = jax.random.fold_in(key, _ROUNDING)
    dtype = jnp.dtype(section["dtype"])
    return jax.tree.map(
        lambda w, k: store(w, dtype, k),
        params,
        leaf_keys(key, params),
        is_leaf=lambda x: x is None,
    )


def widen(config: Mapping, params: Any) -> Any:
    """Parameters as they are moved, float32 where they are stored in less."""
    if not stores(config):
        return params
    return jax.tree.map(lambda w: w.astype(jnp.float32), params)
