"""AdamP's step on moments in eight bits: Adam's, with a pull of every unit."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gnomon.kernels.adam.program import Moved, scalars
from gnomon.kernels.adam_8bit import api as adam_8bit
from gnomon.kernels.adamp.program import Units, pull
from gnomon.kernels.companding import Coded, decode
from gnomon.kernels.engine.program import totals_of

# What Adam's step does not know.
TEST = ("delta", "wd_ratio")


def step(
    arrays: tuple[Any, ...],
    layers: int,
    units: Units,
    numbers: Mapping[str, Any],
    how: Mapping[str, Any],
    place: Mapping[str, Any],
) -> Moved:
    """One step, see :func:`gnomon.kernels.adamp.step`.

    Args:
      arrays: parameter, gradient and coded moments.
      layers: how many leading axes run over layers that are coded each on its own.
      units: axes of the leaf.
      numbers: hyperparameters and count, by name.
      how: ``nesterov``, ``stochastic`` and ``block``.
      place: key, sharding and implementation.

    Returns:
      The leaf after the step.
    """
    if layers:
        return _by_layer(arrays, layers, units, numbers, how, place)
    w, g, m, v = arrays
    test: Any = {name: jnp.asarray(numbers[name]).astype(jnp.float32) for name in TEST}
    adam = {name: x for name, x in numbers.items() if name not in TEST}
    decay = None
    if units.reduce and w.size:
        s = scalars(jnp.float32, **adam)
        named = {"w": w, "g": g, "m": m, "v": v}

        def read(x, dtype):
            if isinstance(x, Coded):
                return decode(x, block=how["block"])
            return x.astype(dtype)

        decay = pull(
            lambda sweeps: totals_of(
                *(sweeps, named, {}, s, units.reduce, jnp.float32), read=read
            ),
            *(w.shape, s, units),
            **test,
            nesterov=how["nesterov"],
        )["decay"]
    return adam_8bit.step(w, g, m, v, **adam, pull=decay, **how, **place)


def _by_layer(arrays, layers, units, numbers, how, place) -> Moved:
    """The step of every layer of a stack: its blocks and its draws are its own."""
    inside = Units(
        tuple(axis - 1 for axis in units.reduce),
        tuple(axis - 1 for axis in units.stack if axis),
    )
    sharding, key = place["sharding"], place["key"]
    if sharding is not None:
        rest = PartitionSpec(*sharding.spec[1:])
        place = {**place, "sharding": NamedSharding(sharding.mesh, rest)}

    def layer(numbered):
        index, parts = numbered
        own = None if key is None else jax.random.fold_in(key, index)
        there = {**place, "key": own}
        return step(parts, layers - 1, inside, numbers, how, there)

    return jax.lax.map(layer, (jnp.arange(arrays[0].shape[0]), arrays))
