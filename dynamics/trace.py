"""Traces of symmetric operators from products with random vectors.

Written by hand: matfree has both estimators, in about ten lines each.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.dynamics.lanczos import (
    Operator,
    Tree,
    inner,
    random_like,
    ravel,
    ravel_operator,
    widen,
)


class Trace(NamedTuple):
    """An unbiased estimate of a trace.

    Attributes:
      estimate: scalar.
      standard_error: scalar, from the spread of the random probes; NaN for one probe.
    """

    estimate: Array
    standard_error: Array


def hutchinson_trace(
    matvec: Operator, like: Tree, *, samples: int = 16, key: Array | None = None
) -> Trace:
    """Trace of a symmetric operator as the mean of `zᵀ A z` over random signs `z`.

    The variance of one term is twice the squared norm of the part off the diagonal, so
    a diagonal operator needs one sample.

    Args:
      matvec: the operator, for instance a
        :func:`gnomon.dynamics.curvature.hessian_operator`.
      like: tree whose structure and shapes the operator's vectors have.
      samples: products with the operator. Default 16.
      key: seed of the signs. Default `jax.random.key(0)`.

    Returns:
      The `Trace`.

    Raises:
      ValueError: if `samples` is less than one.

    Example:
      >>> import jax.numpy as jnp
      >>> hutchinson_trace(lambda v: 3.0 * v, jnp.zeros(4), samples=2).estimate.item()
      12.0

    References:
      Hutchinson, A stochastic estimator of the trace of the influence matrix, 1989.
    """
    if samples < 1:
        raise ValueError(f"samples: {samples}; at least 1 is needed")
    keys = jax.random.split(jax.random.key(0) if key is None else key, samples)

    def term(key: Array) -> Array:
        signs = random_like(key, like, jax.random.rademacher)
        return inner(signs, widen(matvec(signs)))

    return _mean(jax.lax.map(term, keys))


def hutch_plus_plus_trace(
    matvec: Operator, like: Tree, *, samples: int = 18, key: Array | None = None
) -> Trace:
    """Trace of a symmetric operator, exact on a low-rank part and random on the rest.

    A third of the products sketches the range, `Q = qr(A S)`; another takes the trace
    there exactly; the last estimates what is orthogonal to it:

        tr(QᵀAQ) + mean of zᵀ (I − QQᵀ) A (I − QQᵀ) z.

    The error falls like 1 / samples for a positive operator, Hutchinson's like
    1 / √samples; an operator of rank at most samples / 3 comes out exactly.

    Args:
      matvec: the operator.
      like: tree whose structure and shapes the operator's vectors have.
      samples: products with the operator, at least 3; a third of it, rounded down, is
        the rank of the sketch. Default 18.
      key: seed. Default `jax.random.key(0)`.

    Returns:
      The `Trace`; its error is that of the random part.

    Raises:
      ValueError: if `samples` is less than three.

    Example:
      >>> import jax.numpy as jnp
      >>> u = jnp.arange(6.0)
      >>> trace = hutch_plus_plus_trace(lambda v: u * jnp.vdot(u, v), u, samples=6)
      >>> round(trace.estimate.item(), 3)
      55.0

    References:
      Meyer et al., Hutch++: Optimal Stochastic Trace Estimation, 2021
      (https://arxiv.org/abs/2010.09649), algorithm 1.
    """
    if samples < 3:
        raise ValueError(f"samples: {samples}; Hutch++ needs at least 3")
    key = jax.random.key(0) if key is None else key
    template = ravel(like)
    flat = ravel_operator(matvec, like)
    rank = min(samples // 3, template.size)
    sketch_key, probe_key = jax.random.split(key)

    def apply(rows: Array) -> Array:
        products: Array = jax.lax.map(flat, rows)
        return products

    def signs(key: Array, count: int) -> Array:
        return jax.random.rademacher(key, (count, template.size), template.dtype)

    with jax.default_matmul_precision("highest"):
        sketch = apply(signs(sketch_key, rank))
        range_ = jnp.linalg.qr(sketch.T)[0].T  # [rank, size], rows orthonormal
        exact = jnp.sum(range_ * apply(range_))
        probes = signs(probe_key, samples - 2 * (samples // 3))
        probes = probes - (probes @ range_.T) @ range_
        random = _mean(jnp.sum(probes * apply(probes), axis=1))
    return Trace(exact + random.estimate, random.standard_error)


def _mean(terms: Array) -> Trace:
    count = terms.shape[0]
    # 0 / 0 for one term: its spread says nothing.
    variance = jnp.sum((terms - jnp.mean(terms)) ** 2) / jnp.asarray(
        count - 1, terms.dtype
    )
    return Trace(jnp.mean(terms), jnp.sqrt(variance / count))
