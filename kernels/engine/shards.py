"""A step on the part of a leaf that each device holds."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec


def entries(sharding: NamedSharding | None, ndim: int) -> list[Any]:
    """One entry of the sharding's spec for each axis."""
    spec = () if sharding is None else sharding.spec
    return [*spec, *[None] * (ndim - len(spec))]


def mesh_axes(spec: Sequence[Any]) -> tuple[str, ...]:
    """The names of the mesh's axes that a spec cuts along."""
    return tuple(
        name
        for entry in spec
        if entry is not None
        for name in (entry if isinstance(entry, tuple) else (entry,))
    )


def spreads(sharding: NamedSharding | None, ndim: int, reduce: Sequence[int]) -> bool:
    """Whether units, whose axes ``reduce`` are, lie on several devices."""
    return any(entries(sharding, ndim)[axis] is not None for axis in reduce)


def on_shards(
    run: Callable[..., Any],
    arrays: dict[str, Array],
    units: Any,
    numbers: Any,
    seeds: Array | None,
    *,
    reduce: Sequence[int],
    sharding: NamedSharding | None,
) -> Any:
    """Calls ``run(arrays, units, numbers, seeds)`` on every device.

    Args:
      run: gives arrays of the leaf's shape.
      arrays: arrays of the leaf's shape, ``w`` among them, cut like the leaf.
      units: arrays with one number a unit, of the leaf's rank; they are cut along the
        axes that are not in ``reduce``.
      numbers: what every device has whole.
      seeds: two words to round with; every device gets words of its own, because it
        counts its numbers from zero.
      reduce: the axes inside one unit.
      sharding: how the leaf lies on a mesh, or None on one device.

    Returns:
      What ``run`` gives.
    """
    if sharding is None:
        return run(arrays, units, numbers, seeds)
    spec = entries(sharding, arrays["w"].ndim)
    names = mesh_axes(spec)

    def on_device(arrays, units, numbers, seeds):
        if seeds is not None and names:
            shard = jax.lax.axis_index(names).astype(jnp.int32)
            # The first word would only put the same words in another order.
            seeds = seeds + jnp.stack([jnp.zeros_like(shard), shard])
        return run(arrays, units, numbers, seeds)

    leaf = PartitionSpec(*spec)
    per_unit = PartitionSpec(
        *(None if axis in reduce else entry for axis, entry in enumerate(spec))
    )
    return jax.shard_map(
        on_device,
        mesh=sharding.mesh,
        in_specs=(leaf, per_unit, PartitionSpec(), PartitionSpec()),
        out_specs=leaf,
        check_vma=False,
    )(arrays, units, numbers, seeds)
