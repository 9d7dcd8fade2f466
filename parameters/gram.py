r"""Gram iteration: upper bounds of largest singular values, and their vectors.

Squaring a Gram matrix t times does the work of :math:`2^t` power iterations and starts
from no vector; its Frobenius norm bounds the largest singular value from above.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from gnomon.parameters.trees import compute_dtype, safe_divide
from gnomon.parameters.units import unit_norm

_WHOLE = (-2, -1)


class _Powers(NamedTuple):
    """A Gram matrix of the shorter side, squared, and the logarithm taken out of it."""

    gram: jax.Array
    log: jax.Array


def gram_bound(matrix: jax.Array, steps: int = 5) -> jax.Array:
    r"""An upper bound of the largest singular value.

    .. math::
      G_0 = W, \qquad G_{t+1} = \frac{G_t G_t^\top}{|G_t|_F^2}, \qquad
      \sigma \le |W^{2^t}|_F^{1 / 2^t}

    with the norms that were divided by multiplied back in logarithms. After t steps the
    bound is within the factor :math:`r^{1 / 2^{t+1}}` of the value, with r the rank. It
    has a gradient, which is exact, because the bound does not depend on those norms.

    Args:
      matrix: W, [..., inputs, outputs].
      steps: t, a whole number, default 5.

    Returns:
      The bound, [...], in float32 or wider; 0 for a zero matrix.

    Example:
      >>> matrix = jnp.diag(jnp.array([3.0, 2.0, 1.0]))
      >>> for t in (0, 1, 2, 4):
      ...     print(f"{gram_bound(matrix, t):.4f}", end=" ")
      3.7417 3.1463 3.0144 3.0000

    References:
      Delattre et al., `Efficient Bound of Lipschitz Constant for Convolutional Layers
      by Gram Iteration <https://arxiv.org/abs/2305.16173>`_, 2023
    """
    gram, log = _powers(matrix, steps)
    return _root(jnp.squeeze(unit_norm(gram, _WHOLE), _WHOLE), log, steps)


def leading_pair(
    matrix: jax.Array, steps: int = 12
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The largest singular value and its vectors.

    Args:
      matrix: W, [..., inputs, outputs].
      steps: of Gram iteration, at least one, default 12: as 4,096 power iterations.

    Returns:
      The value [...], and unit vectors [..., inputs] and [..., outputs]; of several
      largest values, one. Zeros for a zero matrix.

    Example:
      >>> value, left, right = leading_pair(jnp.diag(jnp.array([-3.0, 2.0])))
      >>> print(f"{value:.2f}", left * right + 0)
      3.00 [-1.  0.]
    """
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x = _wide(matrix)
    gram = _powers(matrix, steps).gram
    # Each column of a high power is nearly the vector, the longest one most nearly.
    lengths = jnp.sum(jnp.square(gram), -2)
    column = jnp.argmax(lengths, -1)[..., None, None]
    short = jnp.take_along_axis(gram, column, -1)
    short = safe_divide(short, unit_norm(short, _WHOLE))
    long = jnp.matmul(jnp.swapaxes(x, -2, -1), short, precision="highest")
    value = unit_norm(long, _WHOLE)
    long = jnp.squeeze(safe_divide(long, value), -1)
    short = jnp.squeeze(short, -1)
    return jnp.squeeze(value, _WHOLE), *((short, long) if wide else (long, short))


def conv_gram_bound(
    kernel: jax.Array, steps: int = 5, *, size: int | None = None
) -> jax.Array:
    r"""An upper bound of the largest singular value of a convolution of stride one.

    With ``size``, that of an image with circular padding, the convolution is a matrix
    at each frequency, and the bound is the largest of theirs. Without it the kernel is
    convolved with itself,

    .. math::
      \sigma \le \max_i \Big( \sum_{j, d} |K^{(t)}_{ij}(d)| \Big)^{1 / 2^t}

    for images of any size with circular or zero padding: looser by some percent.

    Args:
      kernel: [height, width, inputs, outputs].
      steps: t, a whole number, default 5; without ``size`` the kernel doubles its sides
        at each.
      size: the side of the image, or None, the default.

    Returns:
      The bound, a scalar in float32 or wider; 0 for a zero kernel.

    Raises:
      ValueError: if ``kernel`` does not have four axes, or ``size`` is below its sides.

    Example:
      >>> kernel = jnp.array([1.0, 2.0, 1.0]).reshape(3, 1, 1, 1)  # a blur, of sum 4
      >>> print(f"{conv_gram_bound(kernel, size=8):.3f} {conv_gram_bound(kernel):.3f}")
      4.000 4.000

    References:
      Delattre et al., `Efficient Bound of Lipschitz Constant for Convolutional Layers
      by Gram Iteration <https://arxiv.org/abs/2305.16173>`_, 2023: with a size;
      Delattre et al., `Spectral Norm of Convolutional Layers with Circular and Zero
      Paddings <https://arxiv.org/abs/2402.00240>`_, 2024: without
    """
    if kernel.ndim != 4:
        raise ValueError(f"a kernel has four axes, and this one is {kernel.shape}.")
    kernel = kernel.astype(compute_dtype(kernel.dtype))
    if size is not None:
        if size < max(kernel.shape[:2]):
            raise ValueError(f"size={size} is below a side of {kernel.shape[:2]}.")
        spectrum = jnp.fft.fft2(kernel, (size, size), axes=(0, 1))
        return jnp.max(_complex_bound(spectrum, steps))
    x = jnp.transpose(kernel, (3, 2, 0, 1))
    x = x if x.shape[0] <= x.shape[1] else jnp.swapaxes(x, 0, 1)
    log = jnp.zeros([], x.dtype)
    for _ in range(steps):
        norm = jnp.sqrt(jnp.sum(jnp.square(x)))
        norm = jnp.where(norm > 0, norm, 1)
        x, log = x / norm, 2 * (log + jnp.log(norm))
        around = [(side - 1, side - 1) for side in x.shape[2:]]
        x = jax.lax.conv_general_dilated(x, x, (1, 1), around, precision="highest")
    return _root(jnp.max(jnp.sum(jnp.abs(x), (1, 2, 3)), initial=0), log, steps)


def _wide(matrix: jax.Array) -> jax.Array:
    x = matrix.astype(compute_dtype(matrix.dtype))
    return x if x.shape[-2] <= x.shape[-1] else jnp.swapaxes(x, -2, -1)


def _powers(matrix: jax.Array, steps: int) -> _Powers:
    x = _wide(matrix)
    # By the largest entry first: the square of a small one would round to zero.
    size = jnp.max(jnp.abs(x), _WHOLE, keepdims=True, initial=0)
    size = jax.lax.stop_gradient(jnp.where(size > 0, size, 1))
    x, log = x / size, jnp.log(size)
    for _ in range(steps):
        norm = unit_norm(x, _WHOLE)
        norm = jnp.where(norm > 0, norm, 1)
        x, log = x / norm, 2 * (log + jnp.log(norm))
        x = jnp.matmul(x, jnp.swapaxes(x, -2, -1), precision="highest")
    return _Powers(x, jnp.squeeze(log, _WHOLE))


def _root(norm: jax.Array, log: jax.Array, steps: int) -> jax.Array:
    some = norm > 0
    whole = jnp.log(jnp.where(some, norm, 1)) + log
    return jnp.where(some, jnp.exp(whole / 2**steps), 0)


def _complex_bound(x: jax.Array, steps: int) -> jax.Array:
    """:func:`gram_bound` of complex matrices."""
    x = x if x.shape[-2] <= x.shape[-1] else jnp.swapaxes(x, -2, -1)

    def norms(x: jax.Array) -> jax.Array:
        return jnp.sqrt(jnp.sum(jnp.square(x.real) + jnp.square(x.imag), _WHOLE))

    log = jnp.zeros(x.shape[:-2], x.real.dtype)
    for _ in range(steps):
        norm = norms(x)
        norm = jnp.where(norm > 0, norm, 1)
        x, log = x / norm[..., None, None].astype(x.dtype), 2 * (log + jnp.log(norm))
        adjoint = jnp.conj(jnp.swapaxes(x, -2, -1))
        x = jnp.matmul(x, adjoint, precision="highest")
    return _root(norms(x), log, steps)
