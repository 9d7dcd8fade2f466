"""Causal self-attention with rotary positions."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from gnomon.models.dot_product import Attend, attend
from gnomon.models.initialization import Kernel, Scheme
from gnomon.models.parts import Norm
from gnomon.parameters.trees import compute_dtype


def rotate(x: Array, *, offset: int = 0, base: float = 10_000.0) -> Array:
    r"""Rotary position embedding.

    Feature pair $(x_i, x_{i + D/2})$ at position $t$ turns by the angle
    $t \cdot base^{-2i/D}$, so a query's product with a key depends on their distance
    alone.

    Args:
      x: [..., length, heads, D] with D even.
      offset: position of the first element. Default 0.
      base: the longest wavelength over 2 pi. Default 10,000.

    Returns:
      The rotated array, of the same shape and dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> rotate(jnp.array([1.0, 0.0]).reshape(1, 1, 2), offset=1).ravel().round(3)
      Array([0.54 , 0.841], dtype=float32)

    References:
      Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021
      (https://arxiv.org/abs/2104.09864).
    """
    length, _, features = x.shape[-3:]
    frequencies = base ** (-np.arange(0, features, 2) / features)
    positions = np.arange(offset, offset + length)
    # [1, ..., length, 1, D/2]; made in numpy's double precision, so that the angle of
    # a late position is exact before it is rounded.
    angles = (positions[:, None, None] * frequencies)[(None,) * (x.ndim - 3)]
    dtype = compute_dtype(x.dtype)
    cos, sin = jnp.asarray(np.cos(angles), dtype), jnp.asarray(np.sin(angles), dtype)
    a, b = jnp.split(x.astype(dtype), 2, axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return turned.astype(x.dtype)


class Attention(nnx.Module):
    r"""Causal multi-head self-attention.

    $$\mathrm{out}\left(\mathrm{softmax}(QK^\top / \sqrt{D})\, V\right)$$

    with positions after the query masked out, rotary positions in Q and K, no biases.

    Args:
      width: features in and out.
      head_dim: D, the features of a head; `width // head_dim` heads.
      qk_norm: whether Q and K are normalized over D before they are rotated.
      depth: number of blocks of the model; `out` starts with its variance divided by
        twice as much.
      norm: what normalizes Q and K.
      init: the scheme of initialization.
      implementation: what computes it, see `gnomon.models.dot_product.explain`.
      dtype: compute dtype of the products. Scores and softmax are float32.
      param_dtype: dtype of the kernels.
      rngs: source of the initial values.
    """

    def __init__(
        self,
        width: int,
        head_dim: int,
        *,
        qk_norm: bool,
        depth: int,
        norm: Norm,
        init: Scheme,
        implementation: Attend | None = None,
        dtype: Any,
        param_dtype: Any,
        rngs: nnx.Rngs,
    ):
        options: dict[str, Any] = {
            "use_bias": False,
            "dtype": dtype,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        split = (width // head_dim, head_dim)

        # Three kernels rather than one fused: each keeps its own norm and spectrum,
        # which is what the optimizers act on, and fusing them gained no time on CPU.
        def project(name: str) -> nnx.LinearGeneral:
            kernel = init(Kernel(f"attention/{name}", "hidden", 1.0, depth))
            return nnx.LinearGeneral(width, split, kernel_init=kernel, **options)

        self.query, self.key, self.value = map(project, ("query", "key", "value"))
        out = init(Kernel("attention/out", "residual", 1 / (2 * depth), depth))
        self.out = nnx.LinearGeneral(
            split, width, axis=(-2, -1), kernel_init=out, **options
        )
        self.implementation = implementation
        self.qk_norm = qk_norm
        if qk_norm:
            self.query_norm = norm(head_dim, param_dtype=param_dtype, rngs=rngs)
            self.key_norm = norm(head_dim, param_dtype=param_dtype, rngs=rngs)

    def __call__(
        self, x: Array, *, train: bool, documents: Array | None = None
    ) -> Array:
        """Maps [batch, length, width] to the same shape.

        With `documents`, [batch, length], positions see those of their own number.
        """
        query, key, value = self.query(x), self.key(x), self.value(x)
        if self.qk_norm:
            query = self.query_norm(query, train=train)
            key = self.key_norm(key, train=train)
        query, key = rotate(query), rotate(key)
        attended = attend(
            *(query, key, value),
            documents=documents,
            implementation=self.implementation,
        )
        return self.out(attended)
