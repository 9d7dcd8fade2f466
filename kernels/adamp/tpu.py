"""AdamP's step on TPU: a pass over gradient and parameter, then Adam's kernel.

XLA makes that pass of one fusion, and may make it part of what computes the gradient.
"""

import jax
from jax.sharding import NamedSharding

from gnomon.kernels.adam import tpu as adam
from gnomon.kernels.adam.reference import Moved, Scalars
from gnomon.kernels.adamp._passes import shard_shape, sums_by_xla, update_with
from gnomon.kernels.adamp.reference import Units
from gnomon.kernels.engine.tpu import runner


def holds_whole_units(
    shape: tuple[int, ...], dtypes, units: Units, sharding: NamedSharding | None = None
) -> bool:
    """Whether blocks of whole units fit VMEM and no unit is spread over chips.

    Args:
      shape: shape of the leaf.
      dtypes: dtypes of parameter, gradient and moments.
      units: axes of the leaf.
      sharding: how the leaf lies on a mesh.

    Returns:
      True when the update needs no pass of its own for inner products.
    """
    on_chip = shard_shape(shape, units, sharding)
    if on_chip is None:
        return False
    arrays = {
        name: jax.ShapeDtypeStruct(on_chip, dtype)
        for name, dtype in zip("wgmv", dtypes, strict=True)
    }
    where = runner.folded(on_chip, *units)
    return runner.holds_units(arrays, ("w", "m", "v"), where)


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
    found, inner = sums_by_xla(w, g, m, v, s, units, delta, nesterov=nesterov)
    return update_with(
        *(adam.step, (w, g, m, v), s, units, found, inner),
        wd_ratio=wd_ratio,
        whole=whole,
        nesterov=nesterov,
        key=key,
        sharding=sharding,
    )
