"""AdamP's step on TPU: a pass over gradient and parameter, then Adam's kernel.

The test needs every unit before any number may move, so two passes are the least. The
first is three sums over two arrays, which XLA makes one fusion that cannot read less;
the second is a kernel that holds whole units, so that the inner product of a unit with
its direction, which XLA would read the moments once more for, is found on the chip.
"""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels._layout import layout, tile
from gnomon.kernels.adam import tpu as adam
from gnomon.kernels.adam.reference import Moved, Scalars, compute_dtype, direction
from gnomon.kernels.adamp.reference import Units, unit_sum, views


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
    if sharding is not None:
        spec = [*sharding.spec, *[None] * (len(shape) - len(sharding.spec))]
        if any(spec[axis] is not None for axis in units.reduce):
            return False
        shape = sharding.shard_shape(shape)
    where = layout(shape, *units)
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
    dtype = compute_dtype(w.dtype)
    dtypes = [x.dtype for x in (w, g, m, v)]
    whole = holds_whole_units(w.shape, dtypes, units, sharding)
    found = views(g.astype(dtype), w.astype(dtype), units, delta, s.eps)

    def inner_products():
        wide, grad, m_old, v_old = (x.astype(dtype) for x in (w, g, m, v))
        p, _, _ = direction(grad, m_old, v_old, s, nesterov)
        return unit_sum(p, wide, units)

    # Read again only by those steps that need it: with whole units those that project
    # a layer as one.
    needed = found.by_layer if whole else found.by_unit | found.by_layer
    inner = jax.lax.cond(
        jnp.any(needed), inner_products, lambda: jnp.zeros_like(found.unit_inverse)
    )
    total = jnp.sum(inner, axis=units.layer(w.ndim), keepdims=True)
    factor = jnp.where(found.by_unit, found.unit_inverse, 0)
    ratio = jnp.where(found.by_unit | found.by_layer, wd_ratio, 1)
    coefficient = s.weight_decay * ratio + jnp.zeros_like(factor)
    coefficient -= jnp.where(found.by_layer, total * found.layer_inverse, 0)
    if not whole:
        coefficient -= factor * inner
    return adam.step(
        w,
        g,
        m,
        v,
        s,
        nesterov=nesterov,
        key=key,
        sharding=sharding,
        reduce=units.reduce,
        stack=units.stack,
        units=(coefficient, factor),
        whole=whole,
    )
