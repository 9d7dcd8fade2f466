"""The loss along lines and planes through weight space, and barriers between nets."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.dynamics.curvature import Loss
from gnomon.dynamics.lanczos import Tree, random_like, widen
from gnomon.parameters.stacks import declare
from gnomon.parameters.units import Rules, resolve_axes, unit_norm


class Barrier(NamedTuple):
    """The loss on the straight line between two sets of weights.

    Attributes:
      height: scalar, how far the loss rises above the straight line between its two
        ends; 0 where it never does.
      position: scalar in [0, 1], where.
      positions: [points], the share of the second set of weights.
      losses: [points], the loss there.
    """

    height: Array
    position: Array
    positions: Array
    losses: Array


def filter_direction(
    key: Array, params: Any, *, rules: Rules | None = None, stacked: str | None = None
) -> Tree:
    """A random direction whose every filter is as long as the weights' own filter.

    Rescaling a filter of a network with ReLUs or normalization layers leaves its
    function alone but squeezes the landscape along a plain random direction; with
    filters of equal norms, landscapes of different nets can be compared.

    Args:
      key: seed of the Gaussian entries.
      params: the weights.
      rules: which axes make a filter, see
        :func:`gnomon.parameters.units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      A tree like `params` in float32: leaves without filters (biases, scales) are zero,
      and so is the direction of a filter that is itself zero.

    Raises:
      ValueError: as `resolve_axes` for rules that do not fit.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> params = {"kernel": jnp.array([[3.0, 0.0], [4.0, 0.0]]), "bias": jnp.ones(2)}
      >>> d = filter_direction(jax.random.key(0), params)
      >>> jnp.linalg.norm(d["kernel"], axis=0).round(4).tolist(), d["bias"].tolist()
      ([5.0, 0.0], [0.0, 0.0])

    References:
      Li et al., Visualizing the Loss Landscape of Neural Nets, 2018
      (https://arxiv.org/abs/1712.09913).
    """
    with declare(stacked):
        noises = random_like(key, params)
    axes = resolve_axes(params, rules, stacked)

    def leaf(weight: Array, noise: Array, axes: Any) -> Array:
        if not axes.reduce:
            return jnp.zeros_like(noise)
        return noise * (unit_norm(weight, axes) / unit_norm(noise, axes))

    return jax.tree.map(leaf, widen(params), noises, axes)


def interpolate(start: Any, end: Any, position: float | Array) -> Tree:
    """The weights `(1 − t) start + t end`, in float32.

    Args:
      start: a tree of arrays.
      end: tree like `start`.
      position: t, a scalar.

    Returns:
      A tree like `start`.

    Example:
      >>> import jax.numpy as jnp
      >>> interpolate(jnp.zeros(2), jnp.array([4.0, 8.0]), 0.25).tolist()
      [1.0, 2.0]
    """

    def leaf(a: Array, b: Array) -> Array:
        t = jnp.asarray(position).astype(a.dtype)
        return (1 - t) * a + t * b

    return jax.tree.map(leaf, widen(start), widen(end))


def loss_line(
    loss_fn: Loss, params: Any, direction: Tree, positions: Sequence[float] | Array
) -> Array:
    """The loss at `params + t direction`.

    Args:
      loss_fn: from parameters to a scalar. It is given float32 parameters, as a step
        below the resolution of bfloat16 would not move.
      params: the origin.
      direction: tree like `params`, for instance of :func:`filter_direction`.
      positions: [n], values of t.

    Returns:
      [n] losses, evaluated one after another.

    Example:
      >>> import jax.numpy as jnp
      >>> loss_line(jnp.sum, jnp.ones(2), jnp.array([1.0, 0.0]), [0.0, 3.0]).tolist()
      [2.0, 5.0]
    """
    origin, direction = widen(params), widen(direction)
    losses: Array = jax.lax.map(
        lambda t: loss_fn(_move(origin, direction, t)), jnp.asarray(positions)
    )
    return losses


def loss_plane(
    loss_fn: Loss,
    params: Any,
    first: Tree,
    second: Tree,
    first_positions: Sequence[float] | Array,
    second_positions: Sequence[float] | Array,
) -> Array:
    """The loss at `params + s first + t second` on a grid.

    Args:
      loss_fn: as in :func:`loss_line`.
      params: the origin.
      first: tree like `params`.
      second: tree like `params`.
      first_positions: [n], values of s.
      second_positions: [m], values of t.

    Returns:
      [n, m] losses.

    Example:
      >>> import jax.numpy as jnp
      >>> e = jnp.eye(2)
      >>> loss = lambda w: 10 * w[0] + w[1]
      >>> loss_plane(loss, jnp.zeros(2), e[0], e[1], [0.0, 1.0], [0.0, 2.0]).tolist()
      [[0.0, 2.0], [10.0, 12.0]]
    """
    origin, first = widen(params), widen(first)
    losses: Array = jax.lax.map(
        lambda s: loss_line(loss_fn, _move(origin, first, s), second, second_positions),
        jnp.asarray(first_positions),
    )
    return losses


def linear_barrier(loss_fn: Loss, start: Any, end: Any, *, points: int = 25) -> Barrier:
    """The loss barrier on the straight line between two nets.

        max over t of  L((1 − t) a + t b) − ((1 − t) L(a) + t L(b))

    Two nets are linearly mode connected where it is near zero. Nets that differ by a
    permutation of hidden units compute the same function and yet show a barrier;
    :func:`gnomon.dynamics.matching.weight_matching` takes the permutation out.

    Args:
      loss_fn: from parameters to a scalar; given float32 parameters.
      start: weights a.
      end: weights b, like `start`.
      points: evenly spaced positions, the ends included, at least 3. Default 25.

    Returns:
      The `Barrier`; its height is NaN where a loss is NaN.

    Raises:
      ValueError: if `points` is less than three.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda w: (w**2 - 1) ** 2  # minima at -1 and 1, a hill between
      >>> barrier = linear_barrier(loss, jnp.float32(-1), jnp.float32(1), points=5)
      >>> barrier.height.item(), barrier.position.item()
      (1.0, 0.5)

    References:
      Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, 2020
      (https://arxiv.org/abs/1912.05671).
      Entezari et al., The Role of Permutation Invariance in Linear Mode Connectivity of
      Neural Networks, 2022 (https://arxiv.org/abs/2110.06296).
    """
    if points < 3:
        raise ValueError(f"points: {points}; at least 3 are needed")
    positions = jnp.linspace(0.0, 1.0, points)
    losses = jax.lax.map(lambda t: loss_fn(interpolate(start, end, t)), positions)
    share = positions.astype(losses.dtype)
    rise = losses - ((1 - share) * losses[0] + share * losses[-1])
    return Barrier(jnp.max(rise), positions[jnp.argmax(rise)], positions, losses)


def _move(origin: Tree, direction: Tree, distance: Array) -> Tree:
    return jax.tree.map(
        lambda x, d: x + jnp.asarray(distance).astype(x.dtype) * d, origin, direction
    )
