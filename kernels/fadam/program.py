"""FAdam's step as sums over a layer and an update."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.engine import whole
from gnomon.kernels.engine.program import Again, Power, Program, Sweep, power

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


def program(
    options: Options,
    length: int,
    power: Power = power,
    again: Again | None = None,
    *,
    descends: bool = True,
) -> Program:
    """The step on layers of ``length`` numbers.

    Args:
      options: which of the method's variants.
      length: numbers in a layer.
      power: of what is not negative, by what the chip has.
      again: where each use of the denominator is to compute it anew; None shares it.
      descends: whether ``w`` moves, or gives way to the direction, ascent-signed.

    Returns:
      The program, on arrays ``w``, ``g``, ``m`` and ``root``.
    """
    moving = ("g", "w") if options.decays else ("g",)
    length = max(length, 1)

    def measured(blocks, totals, s):
        of = metric(jnp.sqrt(totals[0] / length), s, options, power)
        root = next_root(blocks["g"], blocks["root"], s)
        if again is not None:
            return of, root, lambda after: inverse(again(root, after), of, s, power)
        shared = inverse(root, of, s, power)
        return of, root, lambda after: shared

    def unit(of, name):
        # Squares of a gradient's natural form in units of its size: they would
        # underflow.
        return of.scale if name == "g" else 1.0

    def rms(name, total, of):
        return jnp.sqrt(total / length) * unit(of, name)

    def sizes(blocks, totals, s):
        g = blocks["g"]
        return (jnp.square(g if again is None else again(g, g)),)

    def squares(blocks, totals, s):
        of, _, per = measured(blocks, totals, s)
        first = per(totals[0])
        return tuple(jnp.square(blocks[x] * (first / unit(of, x))) for x in moving)

    def update(blocks, totals, s):
        of, root, per = measured(blocks, totals, s)
        natural, *shrinking = (
            blocks[name]
            * (per(t) / DIVISOR[options.clip_rule](of.unit, rms(name, t, of), s.clip))
            for name, t in zip(moving, totals[1:], strict=True)
        )
        m = s.b1 * blocks["m"] + s.one_minus_b1 * natural
        d = sum((s.weight_decay * h for h in shrinking), start=m)
        w = blocks["w"] - s.learning_rate * d if descends else d
        return {"w": w, "m": m, "root": root}

    sweeps = (
        Sweep(("g",), 1, sizes),
        Sweep((*moving, "root"), len(moving), squares),
    )
    return Program(
        "fadam", sweeps, update, ("w", "m", "root"), shares=again is not None
    )


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
    length = math.prod(w.shape[axis] for axis in axes)
    ascent = program(options, length, again=whole.again, descends=False)
    arrays = {"w": w, "g": g, "m": m, "root": root}
    moved = whole.advance(ascent, arrays, {}, s, axes, w.dtype)
    return moved["w"], moved["m"], moved["root"]
