"""AdamP's step on one leaf: the definition."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.adam.reference import (
    Moved,
    Scalars,
    compute_dtype,
    direction,
    store,
)


class Views(NamedTuple):
    """What the test of the gradient found; all broadcast against the leaf."""

    by_unit: jax.Array  # every unit of the layer passed, one bool a layer
    by_layer: jax.Array  # they did not, but the layer as a whole did
    unit_inverse: jax.Array  # 1 / (|w_i| + eps)**2, 0 for a zero unit
    layer_inverse: jax.Array  # 1 / (|w| + eps)**2, 0 for a zero layer


class Units(NamedTuple):
    """Which axes of a leaf lie inside one unit, and which run over layers."""

    reduce: tuple[int, ...]
    stack: tuple[int, ...] = ()

    def layer(self, ndim: int) -> tuple[int, ...]:
        """The axes inside one layer."""
        return tuple(axis for axis in range(ndim) if axis not in self.stack)


def unit_sum(x: jax.Array, y: jax.Array, units: Units) -> jax.Array:
    """``<x_i, y_i>`` for every unit."""
    return jnp.sum(x * y, axis=units.reduce, keepdims=True)


def views(
    g: jax.Array, w: jax.Array, units: Units, delta: jax.Array, eps: jax.Array
) -> Views:
    """Tests the units of a leaf, then its layers, for scale invariance.

    A view passes where ``|cos(g, w)| < delta / sqrt(n)`` for all of its parts, ``n``
    numbers each.

    Args:
      g: the gradient, in the dtype to compute in.
      w: the parameter, of the same dtype.
      units: axes of the leaf, at least one of them in ``reduce``.
      delta: threshold.
      eps: floor of the norms in the cosine, and added to ``|w|`` in the inverses.

    Returns:
      Which view passed, and what to scale its inner products by.
    """
    sums = [unit_sum(x, y, units) for x, y in ((g, w), (g, g), (w, w))]
    return views_of(sums, w.shape, units, delta, eps)


def views_of(
    sums: Sequence[jax.Array],
    shape: tuple[int, ...],
    units: Units,
    delta: jax.Array,
    eps: jax.Array,
) -> Views:
    """What :func:`views` gives, of ``<g_i, w_i>``, ``<g_i, g_i>`` and ``<w_i, w_i>``.

    Args:
      sums: the three, for every unit, of the leaf's rank.
      shape: shape of the leaf.
      units: axes of the leaf.
      delta: threshold.
      eps: floor of the norms.

    Returns:
      Which view passed, and what to scale its inner products by.
    """
    layer = units.layer(len(shape))
    # Kept apart, or XLA makes the sums of a layer one more pass over both arrays.
    sums = jax.lax.optimization_barrier(list(sums))

    def view(sums, axes):
        dot, grad_square, square = sums
        grad_norm, norm = jnp.sqrt(grad_square), jnp.sqrt(square)
        floors = jnp.maximum(grad_norm, eps) * jnp.maximum(norm, eps)
        cosine = dot / jnp.where(floors == 0, jnp.inf, floors)
        length = math.prod(shape[axis] for axis in axes)
        passed = jnp.abs(cosine) < delta / math.sqrt(length)
        divisor = jnp.square(norm + eps)
        inverse = jnp.where(divisor > 0, 1 / jnp.where(divisor > 0, divisor, 1), 0)
        return jnp.all(passed, axis=layer, keepdims=True), inverse

    by_unit, unit_inverse = view(sums, units.reduce)
    whole = [jnp.sum(x, axis=layer, keepdims=True) for x in sums]
    by_layer, layer_inverse = view(whole, layer)
    return Views(by_unit, by_layer & ~by_unit, unit_inverse, layer_inverse)


def radial(projects: jax.Array, inner: jax.Array, inverse: jax.Array) -> jax.Array:
    """What a projection takes off the coefficient of ``w``.

    Args:
      projects: which layers are projected.
      inner: ``<p, w>``, anything, NaN too, where nothing is projected.
      inverse: from :class:`Views`; where it is zero there is nothing to take off.

    Returns:
      The coefficients, zero where nothing is projected.
    """
    return jnp.where(projects & (inverse != 0), inner * inverse, 0)


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
) -> Moved:
    """One step, see :func:`gnomon.kernels.adamp.step`."""
    dtype = compute_dtype(w.dtype)
    wide, grad, m_old, v_old = (x.astype(dtype) for x in (w, g, m, v))
    p, m_new, v_new = direction(grad, m_old, v_old, s, nesterov)
    found = views(grad, wide, units, delta, s.eps)
    inner = unit_sum(p, wide, units)
    total = jnp.sum(inner, axis=units.layer(w.ndim), keepdims=True)
    ratio = jnp.where(found.by_unit | found.by_layer, wd_ratio, 1)
    pull = s.weight_decay * ratio - radial(found.by_layer, total, found.layer_inverse)
    pull = pull - radial(found.by_unit, inner, found.unit_inverse)
    moved = wide - s.learning_rate * (p + pull * wide)
    return Moved(
        store(moved, w.dtype, key), m_new.astype(m.dtype), v_new.astype(v.dtype)
    )
