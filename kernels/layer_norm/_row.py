"""The arithmetic of the kernels on whole rows, in float32."""

from jax import Array

from gnomon.kernels.engine.rows import Mean, inverse_root


def forward(
    x: Array, scale: Array, bias: Array, eps: Array, mean: Mean
) -> tuple[Array]:
    """Normalized rows."""
    x = x - mean(x)
    return (x * inverse_root(mean(x * x) + eps) * scale + bias,)


def backward(
    x: Array, dy: Array, scale: Array, eps: Array, mean: Mean
) -> tuple[Array, Array, Array]:
    """Cotangent of `x`, and every row's share of those of `scale` and `bias`."""
    x = x - mean(x)
    inverse = inverse_root(mean(x * x) + eps)
    normalized, dn = x * inverse, dy * scale
    dx = inverse * (dn - normalized * mean(dn * normalized))
    return dx - mean(dx), dy * normalized, dy
