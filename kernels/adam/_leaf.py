"""A leaf of any rank, perhaps sharded, as the three axes that kernels update."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from gnomon.kernels._layout import fold, layout, unfold
from gnomon.kernels._rounding import seeds_from
from gnomon.kernels.adam.reference import Moved, Scalars


def step(
    update: Callable[..., Moved],
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    s: Scalars,
    *,
    nesterov: bool = False,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
    reduce: Sequence[int] = (),
    stack: Sequence[int] = (),
    units: Sequence[jax.Array] | None = None,
    whole: bool = False,
) -> Moved:
    """One step on a leaf of any rank, see :func:`gnomon.kernels.adam.step`.

    Args:
      update: a kernel's update of a leaf of shape (layers, rows, columns).
      w: the parameter, and the three arrays after it.
      g: the gradient.
      m: the first moment.
      v: the second moment.
      s: scalars of the step.
      nesterov: look ahead by one step of momentum.
      key: a key for stochastic rounding.
      sharding: how the four arrays lie on a mesh.
      reduce: axes inside one unit.
      stack: axes over layers.
      units: the two arrays that ``update`` takes joined, of the leaf's rank with
        reduced axes of size one.
      whole: as ``update`` takes it.

    Returns:
      The leaf after the step.
    """
    stochastic = key is not None and w.dtype == jnp.bfloat16
    seeds = seeds_from(key) if stochastic and key is not None else None
    names: tuple[str, ...] = ()

    def on_device(w, g, m, v, s, seeds, units):
        where = layout(w.shape, reduce, stack)
        if units is not None:
            units = [fold(x, where) for x in units]
            units = jnp.concatenate(units, axis=where.axis)
        if seeds is not None and names:
            # Shards count their numbers from zero, so each needs words of its own.
            shard = jax.lax.axis_index(names).astype(jnp.int32)
            seeds = seeds + jnp.stack([shard, jnp.zeros_like(shard)])
        moved = update(
            fold(w, where),
            fold(g, where),
            fold(m, where),
            fold(v, where),
            s,
            units=units,
            axis=None if units is None else where.axis,
            whole=whole,
            nesterov=nesterov,
            seeds=seeds,
        )
        return Moved(*(unfold(x, where, w.shape) for x in moved))

    if sharding is None:
        return on_device(w, g, m, v, s, seeds, units)
    entries = [*sharding.spec, *[None] * (w.ndim - len(sharding.spec))]
    names = tuple(
        name
        for entry in entries
        if entry is not None
        for name in (entry if isinstance(entry, tuple) else (entry,))
    )
    leaf = PartitionSpec(*entries)
    per_unit = PartitionSpec(
        *(None if axis in reduce else entry for axis, entry in enumerate(entries))
    )
    replicated = PartitionSpec()
    return jax.shard_map(
        on_device,
        mesh=sharding.mesh,
        in_specs=(leaf, leaf, leaf, leaf, replicated, replicated, per_unit),
        out_specs=leaf,
        check_vma=False,
    )(w, g, m, v, s, seeds, units)
