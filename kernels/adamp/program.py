"""AdamP's step: sums over units, the test of all of them, and Adam's step with a pull.

The test needs every unit before any number may move, so two passes are the least: sums
over two arrays, and Adam's step with a coefficient for every unit. Where that step
finds sums over whole units itself, it takes the inner products of units with their
directions; where not, or where a layer is projected as a whole, that is a pass between
the two.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.adam.program import Scalars, program
from gnomon.kernels.engine.program import Sweep, Totals


class Views(NamedTuple):
    """What the test of the gradient found; all broadcast against the leaf."""

    by_unit: jax.Array  # every unit of the layer passed, one bool a layer
    by_layer: jax.Array  # they did not, but the layer as a whole did
    unit_square: jax.Array  # (|w_i| + eps)**2, by unit
    layer_square: jax.Array  # (|w| + eps)**2, by layer


class Units(NamedTuple):
    """Which axes of a leaf lie inside one unit, and which run over layers."""

    reduce: tuple[int, ...]
    stack: tuple[int, ...] = ()

    def layer(self, ndim: int) -> tuple[int, ...]:
        """The axes inside one layer."""
        return tuple(axis for axis in range(ndim) if axis not in self.stack)


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


def views(
    sums: Sequence[jax.Array],
    shape: tuple[int, ...],
    units: Units,
    delta: jax.Array,
    eps: jax.Array,
) -> Views:
    """Tests the units of a leaf, then its layers, for scale invariance.

    A view passes where ``|cos(g, w)| < delta / sqrt(n)`` for all of its parts, ``n``
    numbers each.

    Args:
      sums: of :data:`SQUARES`, for every unit, of the leaf's rank.
      shape: shape of the leaf.
      units: axes of the leaf, at least one of them in ``reduce``.
      delta: threshold.
      eps: floor of the norms in the cosine, and added to ``|w|`` in the squares.

    Returns:
      Which view passed, and what to divide its inner products by.
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
        return jnp.all(passed, axis=layer, keepdims=True), jnp.square(norm + eps)

    by_unit, unit_square = view(sums, units.reduce)
    whole = [jnp.sum(x, axis=layer, keepdims=True) for x in sums]
    by_layer, layer_square = view(whole, layer)
    return Views(by_unit, by_layer & ~by_unit, unit_square, layer_square)


def radial(projects: jax.Array, inner: jax.Array, square: jax.Array) -> jax.Array:
    """What a projection takes off the coefficient of ``w``.

    Args:
      projects: which layers are projected.
      inner: ``<p, w>``, anything, NaN too, where nothing is projected.
      square: from :class:`Views`; where it is zero there is nothing to take off.

    Returns:
      The coefficients, zero where nothing is projected.
    """
    divides = projects & (square > 0)
    return jnp.where(divides, inner / jnp.where(divides, square, 1), 0)


def pull(
    sums: Callable[[Sequence[Sweep]], Totals],
    shape: tuple[int, ...],
    s: Scalars,
    units: Units,
    *,
    delta: jax.Array,
    wd_ratio: jax.Array,
    nesterov: bool = False,
    whole: bool = False,
) -> dict[str, jax.Array]:
    """What Adam's step needs to know of every unit.

    Args:
      sums: gives the sums of sweeps over all units of the leaf.
      shape: shape of the leaf.
      s: scalars of the step.
      units: axes of the leaf, at least one of them in ``reduce``.
      delta: threshold of the test.
      wd_ratio: factor on weight decay where the test passed.
      nesterov: look ahead by one step of momentum.
      whole: whether the step finds the inner products of units.

    Returns:
      ``decay``, the coefficient of ``w``, of the leaf's rank; if ``whole`` also
      ``square``, what to divide ``<p, w>`` by and take off it, 0 for nothing.
    """
    found = views(sums([SQUARES]), shape, units, delta, s.eps)
    projects = found.by_unit | found.by_layer
    # Read again only by those steps that need it: with whole units those that project
    # a layer as one.
    needed = jnp.any(found.by_layer if whole else projects)
    (products,) = program(nesterov=nesterov, pulled=True, projects=True).sweeps
    spared = products._replace(known=lambda *_: ((0.0,), ~needed))
    (inner,) = sums([spared])
    total = jnp.sum(inner, axis=units.layer(len(shape)), keepdims=True)
    decay = s.weight_decay * jnp.where(projects, wd_ratio, 1)
    decay += jnp.zeros_like(found.unit_square)
    decay -= radial(found.by_layer, total, found.layer_square)
    if whole:
        square = jnp.where(found.by_unit, found.unit_square, 0)
        return {"decay": decay, "square": square}
    return {"decay": decay - radial(found.by_unit, inner, found.unit_square)}
