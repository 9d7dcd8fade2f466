"""The kernels' passes over whole rows: arithmetic in float32, and what they are given.

Two array passes forward and three backward. The root is computed again on the way back:
the rows must be read in any case.
"""

import functools
from collections.abc import Callable
from typing import Any

from jax import Array

from gnomon.kernels.engine.rows import inverse_root


def forward_rows(x: Array, scale: Array, *rest: Any) -> tuple[Array]:
    """Normalized rows, of which the rest is a bias or nothing, eps and the mean."""
    *bias, eps, mean = rest
    x = x - mean(x) if bias else x
    return (sum(bias, start=x * inverse_root(mean(x * x) + eps) * scale),)


def backward_rows(
    centers: bool, x: Array, dy: Array, scale: Array, eps: Array, mean: Any
) -> tuple[Array, ...]:
    """Cotangent of ``x``, and every row's share of those of scale and bias."""
    x = x - mean(x) if centers else x
    inverse = inverse_root(mean(x * x) + eps)
    normalized, dn = x * inverse, dy * scale
    dx = inverse * (dn - normalized * mean(dn * normalized))
    if centers:
        return dx - mean(dx), dy * normalized, dy
    return dx, dy * normalized


def passes(map_rows: Callable[..., tuple[Array, ...]]) -> tuple[Any, Any]:
    """Forward and backward pass over rows [m, n] by what maps arithmetic over them.

    Both take rows and scale, and perhaps a bias; the second a cotangent; then eps, and
    what ``map_rows`` takes. It gives the cotangent of the rows in their dtype, and
    those of the vectors in float32.
    """

    def forward(x: Array, *vectors_and_eps: Array, **how: Any) -> Array:
        *vectors, eps = vectors_and_eps
        (y,) = map_rows(forward_rows, [x], vectors, eps, outputs=1, **how)
        return y

    def backward(x: Array, *rest: Array, **how: Any) -> tuple[Array, ...]:
        *vectors, dy, eps = rest
        body = functools.partial(backward_rows, len(vectors) > 1)
        sums = dict(outputs=1, sums=len(vectors))
        return map_rows(body, [x, dy], vectors[:1], eps, **sums, **how)

    return forward, backward
