"""What happens between AdamP's two passes, for the kernels of all platforms.

The test needs every unit before any number may move, so two passes are the least: sums
over two arrays, and Adam's kernel with a coefficient for every unit. Where that kernel
holds whole units it finds the inner product of a unit with its direction on the chip;
where not, or where a layer is projected as a whole, that is a pass between the two.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from gnomon.kernels.adam.reference import Moved, Scalars, compute_dtype, direction
from gnomon.kernels.adamp.reference import Units, Views, radial, unit_sum, views
from gnomon.kernels.engine.shards import spreads


def shard_shape(
    shape: tuple[int, ...], units: Units, sharding: NamedSharding | None
) -> tuple[int, ...] | None:
    """The shape that one chip has of a leaf; None where it spreads units over chips."""
    if spreads(sharding, len(shape), units.reduce):
        return None
    return shape if sharding is None else sharding.shard_shape(shape)


def coefficients(
    found: Views,
    inner_products: Callable[[jax.Array], jax.Array],
    units: Units,
    *,
    weight_decay: jax.Array,
    wd_ratio: jax.Array,
    whole: bool,
) -> tuple[jax.Array, jax.Array]:
    """What the update needs to know of every unit.

    Args:
      found: what the test found.
      inner_products: gives ``<p, w>`` of every unit where the bool that it is given is
        true, and anything where not.
      units: axes of the leaf, at least one of them in ``reduce``.
      weight_decay: decoupled weight decay.
      wd_ratio: factor on weight decay where the test passed.
      whole: whether the update finds the inner products of units.

    Returns:
      The coefficient of ``w``, and the factor on ``<p, w>`` to take off it where the
      update is the one to find it, of the leaf's rank.
    """
    # Read again only by those steps that need it: with whole units those that project
    # a layer as one.
    needed = found.by_layer if whole else found.by_unit | found.by_layer
    inner = inner_products(jnp.any(needed))
    total = jnp.sum(inner, axis=units.layer(inner.ndim), keepdims=True)
    factor = jnp.where(found.by_unit, found.unit_inverse, 0)
    ratio = jnp.where(found.by_unit | found.by_layer, wd_ratio, 1)
    coefficient = weight_decay * ratio + jnp.zeros_like(factor)
    coefficient -= radial(found.by_layer, total, found.layer_inverse)
    if not whole:
        coefficient -= radial(found.by_unit, inner, found.unit_inverse)
    return coefficient, factor


def inner_products(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    s: Scalars,
    units: Units,
    needed: jax.Array,
    *,
    nesterov: bool,
) -> jax.Array:
    """By XLA: the parameter's inner products with Adam's direction, where needed."""

    def compute():
        dtype = compute_dtype(w.dtype)
        wide, grad, m_old, v_old = (x.astype(dtype) for x in (w, g, m, v))
        p, _, _ = direction(grad, m_old, v_old, s, nesterov)
        return unit_sum(p, wide, units)

    zeros = jnp.zeros_like(jax.eval_shape(compute))
    return jax.lax.cond(needed, compute, lambda: zeros)


def sums_by_xla(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    s: Scalars,
    units: Units,
    delta: jax.Array,
    *,
    nesterov: bool,
) -> tuple[Views, Callable[[jax.Array], jax.Array]]:
    """What the test found, in one fusion that cannot read less than its two arrays.

    Returns:
      The views, and the inner products as :func:`coefficients` takes them.
    """
    dtype = compute_dtype(w.dtype)
    found = views(g.astype(dtype), w.astype(dtype), units, delta, s.eps)
    arrays = (w, g, m, v, s, units)
    return found, functools.partial(inner_products, *arrays, nesterov=nesterov)


def update_with(
    adam_step: Callable[..., Moved],
    arrays: tuple[jax.Array, jax.Array, jax.Array, jax.Array],
    s: Scalars,
    units: Units,
    found: Views,
    inner: Callable[[jax.Array], jax.Array],
    *,
    wd_ratio: jax.Array,
    whole: bool,
    nesterov: bool,
    key: jax.Array | None,
    sharding: NamedSharding | None,
) -> Moved:
    """The last pass: Adam's kernel with a coefficient for every unit."""
    per_unit = coefficients(
        *(found, inner, units),
        weight_decay=s.weight_decay,
        wd_ratio=wd_ratio,
        whole=whole,
    )
    return adam_step(
        *(*arrays, s),
        nesterov=nesterov,
        key=key,
        sharding=sharding,
        reduce=units.reduce,
        stack=units.stack,
        units=per_unit,
        whole=whole,
    )
