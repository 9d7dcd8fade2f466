"""The arithmetic of the kernels on whole rows, in float32."""

from jax import Array

from gnomon.kernels.engine.rows import Mean, inverse_root


def forward(x: Array, scale: Array, eps: Array, mean: Mean) -> tuple[Array]:
    """Normalized rows."""
    return (x * inverse_root(mean(x * x) + eps) * scale,)


def backward(
    x: Array, dy: Array, scale: Array, eps: Array, mean: Mean
) -> tuple[Array, Array]:
    """Cotangent of `x`, and every row's share of that of `scale`.

    The root is computed again: `x` must be read in any case.
    """
    inverse = inverse_root(mean(x * x) + eps)
    normalized, dn = x * inverse, dy * scale
    dx = inverse * (dn - normalized * mean(dn * normalized))
    return dx, dy * normalized
