"""FAdam's step on one leaf: the definition."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.kernels.adam.reference import compute_dtype, store

Power = Callable[[jax.Array, jax.Array], jax.Array]
EpsRule = Literal["min", "max"]
ClipRule = Literal["threshold", "scale"]

BOUND = {"min": jnp.minimum, "max": jnp.maximum}
# The divisor of a clipped direction of size rms, in units of unit.
DIVISOR = {
    # A leaf of zeros is not clipped, not even to zero.
    "threshold": lambda unit, rms, clip: jnp.maximum(
        unit, jnp.where(rms > 0, rms / clip, 0)
    ),
    "scale": lambda unit, rms, clip: jnp.maximum(unit, rms) / clip,
}


class Moved(NamedTuple):
    """One leaf after a step."""

    w: jax.Array  # the parameter
    m: jax.Array  # momentum of the clipped natural gradient
    root: jax.Array  # root of the Fisher information


class Options(NamedTuple):
    """What of a step is not a number."""

    eps_rule: EpsRule = "min"
    eps_to_2p: bool = True
    clip_rule: ClipRule = "threshold"
    decays: bool = True  # whether the leaf decays at all


class Scalars(NamedTuple):
    """What one step shares between all numbers of a leaf, traced or not."""

    learning_rate: Any
    b1: Any
    one_minus_b1: Any
    weight: Any  # of the squared gradient in the Fisher information
    eps: Any
    weight_decay: Any
    clip: Any
    exponent: Any  # 2 p


class Metric(NamedTuple):
    """What the gradient's size says of a leaf's denominator."""

    scale: jax.Array  # the size, or 1 where it is 0
    unit: jax.Array  # scale ** 2p, the unit of the denominator
    floor: jax.Array  # the denominator where nothing was seen, in that unit


def scalars(
    dtype, *, learning_rate, b1, b2, eps, weight_decay, clip, p, count
) -> Scalars:
    """The scalars of one step, in the dtype to compute in.

    Args:
      dtype: the dtype.
      learning_rate: step size.
      b1: decay of the momentum.
      b2: decay of the Fisher information.
      eps: added to the denominator, relative to the gradient's size.
      weight_decay: rate of weight decay.
      clip: largest RMS of the natural gradient and of the decay.
      p: power of the Fisher information.
      count: steps taken, this one included, from 1.

    Returns:
      The scalars.
    """
    rate, beta1, beta2, epsilon, decay, bound, power, t = (
        jnp.asarray(x).astype(dtype)
        for x in (learning_rate, b1, b2, eps, weight_decay, clip, p, count)
    )
    # 1 - b2 (1 - b2^(t-1)) / (1 - b2^t), without its cancellation.
    seen = 1 - beta2**t
    # At b2 = 1, which decays nothing, the limit: the mean of all.
    weight = jnp.where(seen == 0, 1 / t, (1 - beta2) / jnp.where(seen == 0, 1, seen))
    return Scalars(rate, beta1, 1 - beta1, weight, epsilon, decay, bound, 2 * power)


def power(x: jax.Array, exponent: jax.Array) -> jax.Array:
    """``x ** exponent``, and ``x`` itself, whatever the chip's logarithm, at 1."""
    return jnp.where(exponent == 1, x, x**exponent)


def metric(
    size: jax.Array, s: Scalars, options: Options, power: Power = power
) -> Metric:
    """The denominator's unit and floor, from the gradient's RMS.

    In units of the gradient's size, because at ``p = 1`` the squares of ``w / f`` would
    overflow float32 otherwise.
    """
    eps = s.eps * BOUND[options.eps_rule](1, size)
    scale = jnp.where(size > 0, size, 1)
    unit = power(scale, s.exponent)
    floor = power(eps / scale, s.exponent) if options.eps_to_2p else eps / unit
    return Metric(scale, unit, floor)


def next_root(g: jax.Array, root: jax.Array, s: Scalars) -> jax.Array:
    """The root of the Fisher information with one more gradient."""
    return jnp.sqrt(root * root + s.weight * (g * g - root * root))


def inverse(root: jax.Array, of: Metric, s: Scalars, power: Power = power) -> jax.Array:
    """One over the denominator, in units of one over ``of.unit``."""
    denominator = power(root / of.scale, s.exponent) + of.floor
    # Zero only where every gradient so far was: no direction, no decay.
    positive = denominator > 0
    return jnp.where(positive, 1 / jnp.where(positive, denominator, 1), 0)


def direction(
    g: jax.Array,
    w: jax.Array,
    m: jax.Array,
    root: jax.Array,
    s: Scalars,
    options: Options,
    axes: tuple[int, ...],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """FAdam's direction, decay included, and the new state, all in one dtype.

    Args:
      g: the gradient.
      w: the parameter.
      m: the momentum.
      root: root of the Fisher information.
      s: scalars of the step.
      options: which of the method's variants.
      axes: the axes of the leaf inside one layer.

    Returns:
      The direction, ascent-signed, the new momentum and the new root.
    """
    (size,) = _rms((jax.lax.optimization_barrier(g),), axes)
    of = metric(size, s, options)
    root = next_root(g, root, s)

    def again(after):
        # Computed anew for each use. XLA on CPU writes what two passes share to a new
        # array, and the page faults of that cost more than all the divisions; it takes
        # barriers on different values for different.
        same, _ = jax.lax.optimization_barrier((root, after))
        return inverse(same, of, s)

    vectors = (g, w) if options.decays else (g,)
    # Squares of a gradient's natural form in units of its size: they would underflow.
    first = again(size)
    units = (of.scale, jnp.ones_like(of.scale))[: len(vectors)]
    pairs = zip(vectors, units, strict=True)
    sizes = _rms(tuple(x * (first / unit) for x, unit in pairs), axes)
    natural, *shrinking = (
        x * (again(rms) / DIVISOR[options.clip_rule](of.unit, rms * unit, s.clip))
        for x, rms, unit in zip(vectors, sizes, units, strict=True)
    )
    m = s.b1 * m + s.one_minus_b1 * natural
    return sum((s.weight_decay * h for h in shrinking), start=m), m, root


def step(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    root: jax.Array,
    s: Scalars,
    options: Options,
    axes: tuple[int, ...],
    *,
    key: jax.Array | None = None,
) -> Moved:
    """One step, see :func:`gnomon.kernels.fadam.step`."""
    dtype = compute_dtype(w.dtype)
    wide, grad, m_old, root_old = (x.astype(dtype) for x in (w, g, m, root))
    d, m_new, root_new = direction(grad, wide, m_old, root_old, s, options, axes)
    moved = wide - s.learning_rate * d
    return Moved(
        store(moved, w.dtype, key), m_new.astype(m.dtype), root_new.astype(root.dtype)
    )


def _rms(xs: tuple[jax.Array, ...], axes: tuple[int, ...]) -> list[jax.Array]:
    """Root mean squares over axes, kept with size one; 0 of an empty leaf."""
    length = max(1, math.prod(xs[0].shape[axis] for axis in axes))
    squares = [x * x for x in xs]
    if len(xs) > 1 and len(axes) > 1:
        # One pass for all, which sum() over each would not be. Rows first, because a
        # single running sum over a large leaf in float32 is wrong by a percent.
        zero = np.zeros([], squares[0].dtype)
        rows = jax.lax.reduce(
            squares,
            [zero] * len(xs),
            lambda x, y: [a + b for a, b in zip(x, y, strict=True)],
            axes[-1:],
        )
        squares = [
            jnp.expand_dims(row, axes[-1]) for row in jax.lax.optimization_barrier(rows)
        ]
    return [jnp.sqrt(jnp.sum(x, axis=axes, keepdims=True) / length) for x in squares]
