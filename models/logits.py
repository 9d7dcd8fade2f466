"""Logits that are not computed before it is known what is asked of them."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.parameters.trees import compute_dtype


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("features", "kernel"),
    meta_fields=("multiplier", "tied", "chunk"),
)
@dataclass(frozen=True)
class LazyLogits:
    r"""The logits :math:`z = c\, x W` of a language model, as their factors.

    Where a vocabulary is large they are the largest array of a training step, though a
    loss needs one number of each position. `cross_entropy` computes them for `chunk`
    positions of every sequence at a time, with the gradient at once, and keeps

    .. math:: \sum_t w_t \left(\log \sum_v e^{z_{tv}} - z_{t y_t}\right), \qquad
        \frac{\partial}{\partial z_{tv}} = w_t (p_{tv} - [v = y_t]).

    Attributes:
      features: x, [batch, length, width], in the compute dtype.
      kernel: W, [vocab, width] where tied, else [width, vocab], in the dtype of the
        parameters.
      multiplier: c.
      tied: whether the kernel is the embedding.
      chunk: positions of a sequence whose logits are there at a time.

    Example:
      >>> x, w = jnp.ones((2, 5, 3)), jnp.eye(3, 7)
      >>> lazy = LazyLogits(x, w, multiplier=1.0, tied=False, chunk=2)
      >>> print(lazy.dense().shape, lazy.cross_entropy(jnp.ones((2, 5), int)).round(3))
      (2, 5, 7) 1.498
    """

    features: Array
    kernel: Array
    multiplier: float
    tied: bool
    chunk: int

    def dense(self) -> Array:
        """The logits, [batch, length, vocab], float32."""
        return _product(self.features, self.kernel, self.tied, self.multiplier)

    def cross_entropy(self, labels: Array, weights: Array | None = None) -> Array:
        """The mean cross-entropy, in nats.

        Args:
          labels: [batch, length] integers.
          weights: [batch, length], what each position counts; None counts each once.

        Returns:
          float32, a weighted mean; 0 where nothing counts.
        """
        dtype = compute_dtype(self.features.dtype)
        weights = jnp.ones(labels.shape) if weights is None else weights
        weights = jax.lax.stop_gradient(weights).astype(dtype)
        weights = weights / jnp.maximum(jnp.sum(weights), 1)
        how = self.multiplier, self.tied, self.chunk
        return _summed(how, self.features, self.kernel, labels, weights)

    def rows(self, function: Callable[[Array], Any]) -> Any:
        """What a function of a position's logits gives, for all of them.

        Args:
          function: from [batch, chunk, vocab] logits to arrays [batch, chunk].

        Returns:
          The same arrays, [batch, length].
        """

        def step(features: Array) -> Any:
            return function(_product(features, self.kernel, self.tied, self.multiplier))

        found = jax.lax.map(step, _cut(self.features, self.chunk))
        length = self.features.shape[1]
        return jax.tree.map(lambda x: _join(x)[:, :length], found)


def _product(features: Array, kernel: Array, tied: bool, multiplier: float) -> Array:
    # The products are in the compute dtype, their sums and the logits in float32.
    logits = jnp.einsum(
        "btd,vd->btv" if tied else "btd,dv->btv",
        features,
        kernel.astype(features.dtype),
        preferred_element_type=compute_dtype(features.dtype),
    )
    if multiplier == 1:
        return logits
    return logits * jnp.asarray(multiplier, logits.dtype)


def _cut(x: Array, chunk: int) -> Array:
    """[batch, length, ...] as [chunks, batch, chunk, ...], filled up with zeros."""
    # Along the length: the examples of a batch may lie on several devices.
    chunk = min(chunk, x.shape[1])
    rest = [(0, 0)] * x.ndim
    rest[1] = (0, -x.shape[1] % chunk)
    x = jnp.pad(x, rest)
    return jnp.moveaxis(x.reshape(x.shape[0], -1, chunk, *x.shape[2:]), 1, 0)


def _join(x: Array) -> Array:
    """The inverse of `_cut`, but for what was filled up."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def _losses(how: Any, kernel: Array, chunk: Any) -> tuple[Array, Array, Array]:
    multiplier, tied, _ = how
    features, labels, weights = chunk
    logits = _product(features, kernel, tied, multiplier)
    norm = jax.nn.logsumexp(logits, axis=-1)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jnp.sum(weights * (norm - picked)), logits, norm


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(
    how: Any, features: Array, kernel: Array, labels: Array, weights: Array
) -> Array:
    def step(total, chunk):
        return total + _losses(how, kernel, chunk)[0], None

    zero = jnp.zeros((), weights.dtype)
    chunks = tuple(_cut(x, how[-1]) for x in (features, labels, weights))
    return jax.lax.scan(step, zero, chunks)[0]


def _forward(
    how: Any, features: Array, kernel: Array, labels: Array, weights: Array
) -> tuple[Array, Any]:
    multiplier, tied, _ = how
    wide = compute_dtype(kernel.dtype)

    def step(carry, chunk):
        total, slope = carry
        x, y, w = chunk
        loss, logits, norm = _losses(how, kernel, chunk)
        p = jnp.exp(logits - norm[..., None])
        hit = jax.nn.one_hot(y, p.shape[-1], dtype=p.dtype)
        # In the compute dtype for the two products, as features and kernel are.
        d = (p - hit) * (w * multiplier)[..., None]
        d = d.astype(x.dtype)
        dx = jnp.einsum(
            "btv,vd->btd" if tied else "btv,dv->btd", d, kernel.astype(x.dtype)
        )
        dw = jnp.einsum(
            "btv,btd->vd" if tied else "btv,btd->dv", d, x, preferred_element_type=wide
        )
        return (total + loss, slope + dw), dx

    zeros = jnp.zeros((), weights.dtype), jnp.zeros(kernel.shape, wide)
    chunks = tuple(_cut(x, how[-1]) for x in (features, labels, weights))
    (total, slope), dx = jax.lax.scan(step, zeros, chunks)
    dx = _join(dx)[:, : features.shape[1]]
    return total, (dx, slope.astype(kernel.dtype))


def _backward(how: Any, slopes: tuple[Array, Array], seed: Array) -> tuple:
    del how
    return *((seed * s.astype(seed.dtype)).astype(s.dtype) for s in slopes), None, None


_summed.defvjp(_forward, _backward)
