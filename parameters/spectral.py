"""Largest singular values and polar factors of matrices, stacked or not.

Written by hand: what optax has (`power_iteration`, and the iteration inside of
`optax.contrib.muon`) takes one matrix, and starts anew or returns another factor.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gnomon.parameters.trees import compute_dtype, safe_divide
from gnomon.parameters.units import unit_norm

# The quintic that is 1 with slope and curvature 0 at 1: it converges to the factor.
CONVERGENT = (15 / 8, -10 / 8, 3 / 8)
# Steepest at 0; it stays within 0.68 and 1.14 of the factor's singular values.
STEEP = (3.4445, -4.7750, 2.0315)


def largest_singular_value(
    matrix: jax.Array, vector: jax.Array, iterations: int = 4
) -> tuple[jax.Array, jax.Array]:
    r"""The largest singular value, by power iteration from the last call's vector.

    Weights move little from call to call, so a few iterations from where the last call
    ended do the work of many from anywhere.

    Args:
      matrix: W, [..., inputs, outputs], as `matrices.as_matrices` reads a leaf.
      vector: unit vectors v, [..., outputs].
      iterations: products with :math:`W^\top W`. Default 4.

    Returns:
      :math:`|W v|`, [...], a lower bound of the largest singular value that converges
      to it, and the vectors for the next call. Zero and the old vector for a zero
      matrix.

    Example:
      >>> value, _ = largest_singular_value(
      ...     jnp.diag(jnp.array([3.0, 1.0])), jnp.array([0.6, 0.8]), iterations=8)
      >>> print(f"{value:.4f}")
      3.0000
    """
    iterate = functools.partial(_power_iteration, iterations=iterations)
    each = jnp.vectorize(iterate, signature="(i,o),(o)->(),(o)")
    value, vector = each(matrix, vector)
    return value, vector


def _power_iteration(
    matrix: jax.Array, vector: jax.Array, iterations: int
) -> tuple[jax.Array, jax.Array]:
    def turn(v: jax.Array, _: None) -> tuple[jax.Array, None]:
        product = matrix.T @ (matrix @ v)
        norm = jnp.linalg.norm(product)
        return jnp.where(norm > 0, product / jnp.where(norm > 0, norm, 1), v), None

    vector, _ = jax.lax.scan(turn, vector, length=iterations)
    return jnp.linalg.norm(matrix @ vector), vector


def polar(
    matrix: jax.Array,
    iterations: int = 12,
    coefficients: Sequence[Any] | jax.Array = CONVERGENT,
) -> jax.Array:
    r"""The orthogonal factor :math:`U V^\top` of a matrix :math:`U \Sigma V^\top`.

    Newton-Schulz iteration: an odd polynomial moves every singular value toward one
    and leaves the singular vectors as they are,

    .. math:: X_0 = W / |W|_F, \qquad
        X \leftarrow a X + b (X X^\top) X + c (X X^\top)^2 X.

    Products are float32 (float64 for float64) at the highest precision.

    Args:
      matrix: W, [..., inputs, outputs], as `matrices.as_matrices` reads a leaf.
      iterations: steps. A singular value of share s of the Frobenius norm needs about
        :math:`\log(1/s) / \log a` of them, and three more. Default 12.
      coefficients: a, b, c. `CONVERGENT`, the default, converges to the factor;
        `STEEP`, for five steps or so, puts its singular values near one alone. A row a
        step, [steps, 3], is taken in place of ``iterations``.

    Returns:
      The factor, of the shape and dtype of `matrix`; zero for a zero matrix.

    Example:
      >>> print(polar(jnp.array([[3.0, 0.0], [0.0, -2.0]])).round(3))
      [[ 1.  0.]
       [ 0. -1.]]

    References:
      Bernstein & Newhouse, Old Optimizer, New Norm: An Anthology, 2024
      (https://arxiv.org/abs/2409.20325).
      Jordan et al., Muon, 2024 (https://kellerjordan.github.io/posts/muon/): `STEEP`.
    """
    x = matrix.astype(compute_dtype(matrix.dtype))
    rows = jnp.asarray(coefficients, x.dtype)
    # The product with the shorter side is the smaller one.
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else jnp.swapaxes(x, -2, -1)
    # By the largest entry first: the square of a small one would round to zero.
    x = safe_divide(x, jnp.max(jnp.abs(x), (-2, -1), keepdims=True, initial=0))
    x = safe_divide(x, unit_norm(x, (-2, -1)))
    product = functools.partial(jnp.matmul, precision="highest")

    def step(x: jax.Array, row: jax.Array | None) -> tuple[jax.Array, None]:
        a, b, c = rows if row is None else row
        gram = product(x, jnp.swapaxes(x, -2, -1))
        return a * x + product(b * gram + c * product(gram, gram), x), None

    if rows.ndim == 1:
        x, _ = jax.lax.scan(step, x, length=iterations)
    else:
        x, _ = jax.lax.scan(step, x, rows)
    return (x if wide else jnp.swapaxes(x, -2, -1)).astype(matrix.dtype)
