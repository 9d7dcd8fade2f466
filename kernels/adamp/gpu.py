"""AdamP's step on a GPU (Hopper): three kernels, the middle one often doing nothing.

The first sums over gradient and parameter, the last is Adam's. The one between reads
four arrays for inner products, in steps that project: units that a block holds need it
only where a layer is projected as a whole. It is launched in any case and told on the
device, because a condition would wait for the host.
"""

from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding

from gnomon.kernels.adam import gpu as adam
from gnomon.kernels.adam._program import program
from gnomon.kernels.adam.reference import Moved, Scalars
from gnomon.kernels.adamp._passes import shard_shape, sums_by_xla, update_with
from gnomon.kernels.adamp.reference import Units, views_of
from gnomon.kernels.engine.gpu.runner import on_chip
from gnomon.kernels.engine.gpu.sums import takes, unit_sums
from gnomon.kernels.engine.layout import fold, layout, unfold
from gnomon.kernels.engine.program import Sweep

# What the test adds up.
SQUARES = Sweep(
    ("w", "g"),
    3,
    lambda blocks, totals, s: (
        blocks["g"] * blocks["w"],
        blocks["g"] * blocks["g"],
        blocks["w"] * blocks["w"],
    ),
)


def holds_whole_units(
    shape: tuple[int, ...],
    dtypes: Sequence[Any],
    units: Units,
    sharding: NamedSharding | None = None,
) -> bool:
    """Whether a block holds units and none is spread over chips.

    Args:
      shape: shape of the leaf.
      dtypes: dtypes of parameter, gradient and moments.
      units: axes of the leaf.
      sharding: how the leaf lies on a mesh.

    Returns:
      True when the update needs no pass of its own for inner products.
    """
    shard = shard_shape(shape, units, sharding)
    if shard is None:
        return False
    return on_chip(layout(shard, *units), [dtype.itemsize for dtype in dtypes])


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
    whole = holds_whole_units(w.shape, [x.dtype for x in (w, g, m, v)], units, sharding)
    where = layout(w.shape, *units)
    axis = where.axis
    if sharding is None and axis is not None and takes(where.shape[2]):
        arrays = {"w": w, "g": g, "m": m, "v": v}
        folded = {name: fold(x, where) for name, x in arrays.items()}
        per_unit = [1 if a in units.reduce else n for a, n in enumerate(w.shape)]
        (products,) = program(nesterov=nesterov, units=True, whole=True).sweeps

        def sums(sweep: Sweep, needed: Any = None) -> list[jax.Array]:
            found = unit_sums(sweep, folded, {}, (), s, axis, needed=needed)
            return [unfold(x, where, per_unit) for x in found]

        def inner(needed):
            return sums(products, needed)[0]

        found = views_of(sums(SQUARES), w.shape, units, delta, s.eps)
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
