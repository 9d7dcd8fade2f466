"""Statistics of a batch, and what evaluation keeps of them: the one form of both."""

from flax import nnx
from jax import Array


def batch_axes(x: Array) -> tuple[int, ...]:
    """Every axis but that of the features: all positions of a batch are examples."""
    return tuple(range(x.ndim - 1))


def follow(running: nnx.BatchStat[Array], batch: Array, momentum: float) -> None:
    r"""Moves a running statistic toward the batch's.

    .. math:: r \leftarrow \beta r + (1 - \beta) s

    Args:
      running: r, float32 whatever the batch's dtype. It changes in place.
      batch: s, of the same shape.
      momentum: :math:`\beta`, the decay.

    Example:
      >>> import jax.numpy as jnp
      >>> mean = nnx.BatchStat(jnp.zeros(1))
      >>> follow(mean, jnp.ones(1), 0.75)
      >>> print(mean[...])
      [0.25]
    """
    kept = momentum * running[...]
    running[...] = kept + (1 - momentum) * batch.astype(kept.dtype)


def by_feature(vector: Array, x: Array) -> Array:
    """A vector of the features' length, shaped to broadcast along `x`."""
    return vector.reshape((1,) * (x.ndim - 1) + vector.shape)
