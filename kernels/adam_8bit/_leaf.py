"""A leaf with moments in eight bits, perhaps sharded, for any kernel."""

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gnomon.kernels.adam.program import Moved, Scalars
from gnomon.kernels.companding import Coded, folded, seeds
from gnomon.kernels.engine.rounding import rounding_seeds
from gnomon.kernels.engine.shards import entries, mesh_axes
from gnomon.kernels.engine.sizes import Gpu, Tpu


def cuts(
    shape: tuple[int, ...], sharding: NamedSharding, block: int
) -> tuple[PartitionSpec, PartitionSpec] | None:
    """How leaf and scales are cut, or None where a cut goes through a block.

    Args:
      shape: shape of the leaf.
      sharding: how the leaf lies on a mesh.
      block: numbers that share one scale.
    """
    spec = entries(sharding, len(shape))
    kept = len(folded(shape, block)[0])
    local = sharding.shard_shape(shape)
    first, *others = spec[kept:] or [None]
    whole = local[kept:] == shape[kept:] or math.prod(local[kept:]) % block == 0
    if any(entry is not None for entry in others) or not whole:
        return None
    if len(folded(local, block)[0]) != kept:
        return None
    return PartitionSpec(*spec), PartitionSpec(*spec[:kept], first)


def step(
    update: Callable[..., Moved],
    w: jax.Array,
    g: jax.Array,
    m: Coded,
    v: Coded,
    s: Scalars,
    count: jax.Array,
    *,
    pull: jax.Array | None = None,
    nesterov: bool = False,
    stochastic: bool = True,
    block: int,
    sizes: Tpu | Gpu,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
) -> Moved:
    """One step, see :func:`gnomon.kernels.adam_8bit.reference.step`.

    Args:
      update: a kernel's update of one leaf that is whole; it is given two words to
        round the moments with, and two more where the parameter is to be rounded.
      w: the parameter.
      g: the gradient.
      m: the first moment.
      v: the second moment.
      s: scalars of the step.
      count: steps taken, this one included.
      pull: what to multiply the parameter by, of the leaf's rank.
      nesterov: look ahead by one step of momentum.
      stochastic: round the moments at random.
      block: numbers that share one scale, a multiple of 128.
      sizes: how much the kernel takes at a time.
      key: a key that rounds bfloat16 parameters stochastically.
      sharding: how the leaf lies on a mesh; it must have :func:`cuts`.

    Returns:
      The leaf after the step.
    """
    update = functools.partial(
        update, nesterov=nesterov, stochastic=stochastic, block=block, sizes=sizes
    )
    # A TPU's scalar memory holds no unsigned words.
    seed = jax.lax.bitcast_convert_type(seeds(count), jnp.int32)
    words = rounding_seeds(key, w.dtype)
    if words is not None:
        seed = jnp.concatenate([seed, words])
    if sharding is None:
        return update(w, g, m, v, s, seed, pull)
    leaf, scales = cast(Any, cuts(w.shape, sharding, block))
    names = mesh_axes(leaf)

    def on_device(w, g, m, v, s, seed, pull):
        # Shards count their numbers from zero, so each needs words of its own.
        shard = jax.lax.axis_index(names) if names else 0
        return update(w, g, m, v, s, seed.at[1::2].add(shard), pull)

    cut = zip(leaf, pull.shape if pull is not None else (), strict=False)
    per_unit = PartitionSpec(*(None if n == 1 else entry for entry, n in cut))
    coded = Coded(leaf, scales)
    return jax.shard_map(
        on_device,
        mesh=sharding.mesh,
        in_specs=(leaf, leaf, coded, coded, PartitionSpec(), PartitionSpec(), per_unit),
        out_specs=Moved(leaf, coded, coded),
        check_vma=False,
    )(w, g, m, v, s, seed, pull)
