"""Adam's step on one leaf, with decoupled weight decay: the definition."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.engine.rounding import random_bits, seeds_from, stochastic_round


class Moved(NamedTuple):
    """One leaf after a step."""

    w: jax.Array  # the parameter
    m: jax.Array  # the first moment
    v: jax.Array  # the second moment


class Scalars(NamedTuple):
    """What one step shares between all numbers of a leaf, traced or not."""

    learning_rate: Any
    b1: Any
    one_minus_b1: Any
    b2: Any
    one_minus_b2: Any
    correction: Any  # (1 - b1**count) / sqrt(1 - b2**count)
    floor: Any  # eps, of the root before its correction
    eps: Any
    weight_decay: Any


def compute_dtype(dtype: jax.typing.DTypeLike) -> Any:
    """The dtype to compute in: float32, or float64 for parameters that are."""
    return jnp.dtype(dtype) if jnp.dtype(dtype).itemsize > 4 else jnp.dtype("float32")


def scalars(dtype, *, learning_rate, b1, b2, eps, weight_decay, count) -> Scalars:
    """The scalars of one step, in the dtype to compute in.

    Args:
      dtype: from :func:`compute_dtype`.
      learning_rate: step size.
      b1: decay of the first moment.
      b2: decay of the second moment.
      eps: added to the denominator after bias correction.
      weight_decay: decoupled weight decay, per learning rate.
      count: steps taken, this one included, from 1.

    Returns:
      The scalars.
    """
    rate, beta1, beta2, epsilon, decay, t = (
        jnp.asarray(x).astype(dtype)
        for x in (learning_rate, b1, b2, eps, weight_decay, count)
    )
    root = jnp.sqrt(1 - beta2**t)
    return Scalars(
        rate,
        beta1,
        1 - beta1,
        beta2,
        1 - beta2,
        (1 - beta1**t) / jnp.where(root > 0, root, 1),
        epsilon * root,
        epsilon,
        decay,
    )


def direction(
    g: jax.Array, m: jax.Array, v: jax.Array, s: Scalars, nesterov: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Adam's direction and the new moments, all in one dtype.

    Both corrections are factors of the whole denominator, which saves every number a
    division and its overflow. Where the denominator is zero there is no direction.
    """
    m = s.b1 * m + s.one_minus_b1 * g
    v = s.b2 * v + s.one_minus_b2 * (g * g)
    first = s.b1 * m + s.one_minus_b1 * g if nesterov else m
    denominator = s.correction * (jnp.sqrt(v) + s.floor)
    zero = denominator == 0
    return jnp.where(zero, 0, first / jnp.where(zero, 1, denominator)), m, v


def store(w: jax.Array, dtype: Any, key: jax.Array | None) -> jax.Array:
    """``w`` rounded once to ``dtype``: to nearest, or at random where a key is given.

    Args:
      w: the new parameter, in the dtype of the computation.
      dtype: dtype of the parameter.
      key: a key, used for bfloat16 alone; None rounds to nearest.

    Returns:
      The parameter.
    """
    if key is None or dtype != jnp.bfloat16:
        return w.astype(dtype)
    first, second = seeds_from(key).astype(jnp.uint32)
    index = jnp.arange(w.size, dtype=jnp.uint32).reshape(w.shape)
    return stochastic_round(w, random_bits(first, second, index))


def step(
    w: jax.Array,
    g: jax.Array,
    m: jax.Array,
    v: jax.Array,
    s: Scalars,
    *,
    nesterov: bool = False,
    key: jax.Array | None = None,
) -> Moved:
    """One step, see :func:`gnomon.kernels.adam.step`."""
    dtype = compute_dtype(w.dtype)
    wide, grad, m_old, v_old = (x.astype(dtype) for x in (w, g, m, v))
    p, m_new, v_new = direction(grad, m_old, v_old, s, nesterov)
    moved = wide - s.learning_rate * (p + s.weight_decay * wide)
    return Moved(
        store(moved, w.dtype, key), m_new.astype(m.dtype), v_new.astype(v.dtype)
    )
