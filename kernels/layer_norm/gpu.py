"""LayerNorm on a GPU (Hopper): two array passes forward, three backward."""

from typing import Any

from jax import Array

from gnomon.kernels.engine.gpu.rows import map_rows
from gnomon.kernels.engine.sizes import Gpu
from gnomon.kernels.layer_norm import _row


def forward(
    x: Array,
    scale: Array,
    bias: Array,
    eps: Array,
    *,
    sizes: Gpu,
    interpret: Any = None,
) -> Array:
    """Normalizes the rows of `x` [m, n]."""
    (y,) = map_rows(
        _row.forward,
        [x],
        [scale, bias],
        eps,
        outputs=1,
        sizes=sizes,
        interpret=interpret,
    )
    return y


def backward(
    x: Array,
    scale: Array,
    bias: Array,
    dy: Array,
    eps: Array,
    *,
    sizes: Gpu,
    interpret: Any = None,
) -> tuple[Array, Array, Array]:
    """Cotangents of `x`, in its dtype, and of `scale` and `bias`, in float32."""
    del bias
    dx, dscale, dbias = map_rows(
        _row.backward,
        [x, dy],
        [scale],
        eps,
        outputs=1,
        sums=2,
        sizes=sizes,
        interpret=interpret,
    )
    return dx, dscale, dbias
