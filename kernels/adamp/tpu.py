"""AdamP's step on TPU: a pass over gradient and parameter, then Adam's kernel."""

import functools

import jax
from jax.sharding import NamedSharding

from gnomon.kernels._layout import layout, tile
from gnomon.kernels.adam import tpu as adam
from gnomon.kernels.adam.reference import Moved, Scalars, compute_dtype
from gnomon.kernels.adamp._passes import coefficients, inner_products, shard_shape
from gnomon.kernels.adamp.reference import Units, views


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
    where = layout(on_chip, *units)
    block = tile(*where.shape[1:], where.axis, adam.BLOCK_ELEMENTS)
    return adam.vmem_bytes(block, dtypes) <= adam.VMEM_BYTES


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
    dtype = compute_dtype(w.dtype)
    # One fusion, which cannot read less than its two arrays.
    found = views(g.astype(dtype), w.astype(dtype), units, delta, s.eps)
    inner = functools.partial(
        inner_products, *(w, g, m, v, s, units), nesterov=nesterov
    )
    per_unit = coefficients(
        *(found, inner, units),
        weight_decay=s.weight_decay,
        wd_ratio=wd_ratio,
        whole=whole,
    )
    return adam.step(
        *(w, g, m, v, s),
        nesterov=nesterov,
        key=key,
        sharding=sharding,
        reduce=units.reduce,
        stack=units.stack,
        units=per_unit,
        whole=whole,
    )
