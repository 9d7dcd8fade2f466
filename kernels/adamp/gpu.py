"""AdamP's step on a GPU (Hopper): three kernels, the middle one often doing nothing.

The first sums over gradient and parameter, the last is Adam's. The one between reads
four arrays for inner products, in steps that project: units that are rows and fit the
registers of a block need it only where a layer is projected as a whole. It is launched
in any case and told on the device, because a condition would wait for the host.
"""

import jax
from jax.sharding import NamedSharding

from gnomon.kernels._layout import Layout, fold, layout
from gnomon.kernels.adam import gpu as adam
from gnomon.kernels.adam.reference import Moved, Scalars
from gnomon.kernels.adamp._passes import shard_shape, sums_by_xla, update_with
from gnomon.kernels.adamp._sums_gpu import both, takes
from gnomon.kernels.adamp.reference import Units, views_of


def holds_whole_units(
    shape: tuple[int, ...], units: Units, sharding: NamedSharding | None = None
) -> bool:
    """Whether units are rows that fit a block and none is spread over chips.

    Args:
      shape: shape of the leaf.
      units: axes of the leaf.
      sharding: how the leaf lies on a mesh.

    Returns:
      True when the update needs no pass of its own for inner products.
    """
    on_chip = shard_shape(shape, units, sharding)
    if on_chip is None:
        return False
    where = layout(on_chip, *units)
    return where.axis == 2 and adam.holds_whole_rows(where.shape[2])


def step(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    s: Scalars,
    units: Units,
    *,
    delta: jax.Array,
    wd_ratio: jax.Array,
    nesterov: bool = False,
    key: jax.Array | None = None,
    sharding: NamedSharding | None = None,
) -> Moved:
    """One step, see :func:`gnomon.kernels.adamp.step`."""
    whole = holds_whole_units(w.shape, units, sharding)
    where = layout(w.shape, *units)
    if sharding is None and where.axis is not None and takes(where.shape[2]):
        squares, products = both(
            fold(w, where),
            fold(g, where),
            fold(m, where),
            fold(v, where),
            s,
            where.axis,
            nesterov=nesterov,
        )
        sums = [_unfold(x, where, w.shape, units) for x in squares()]
        found = views_of(sums, w.shape, units, delta, s.eps)

        def inner(needed):
            return _unfold(products(needed), where, w.shape, units)
    else:
        found, inner = sums_by_xla(w, g, m, v, s, units, delta, nesterov=nesterov)
    return update_with(
        *(adam.step, (w, g, m, v), s, units, found, inner),
        wd_ratio=wd_ratio,
        whole=whole,
        nesterov=nesterov,
        key=key,
        sharding=sharding,
    )


def _unfold(
    sums: jax.Array, where: Layout, shape: tuple[int, ...], units: Units
) -> jax.Array:
    """Sums of folded units in the rank of the leaf."""
    kept = [1 if axis in units.reduce else size for axis, size in enumerate(shape)]
    moved = sums.reshape([kept[axis] for axis in where.order])
    return moved.transpose(sorted(range(len(shape)), key=where.order.__getitem__))
