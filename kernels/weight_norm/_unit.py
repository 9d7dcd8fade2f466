"""The arithmetic of the kernels on whole units, in float32."""

from collections.abc import Callable

from jax import Array

from gnomon.kernels.engine.rows import inverse_root

Total = Callable[[Array], Array]


def forward(v: Array, g: Array, eps: Array, total: Total) -> tuple[Array]:
    """The weights."""
    return (v * inverse_root(total(v * v) + eps) * g,)


def backward(
    v: Array, dw: Array, g: Array, eps: Array, total: Total
) -> tuple[Array, Array]:
    """Cotangents of `v` and `g`."""
    inverse = inverse_root(total(v * v) + eps)
    direction = v * inverse
    dg = total(dw * direction)
    return g * inverse * (dw - direction * dg), dg
