"""How much each training example matters, and which examples to keep."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.dynamics.lanczos import inner, widen


def el2n_scores(logits: Array, labels: Array) -> Array:
    """The distance of predicted probabilities from the label: the EL2N score.

        | softmax(logits) − onehot(label) |₂

    It is the GraNd score with the logits' Jacobians taken as orthogonal and alike.
    Average it over a few seeds, a few epochs into training, before it ranks examples:
    `el2n_scores(logits_of_seeds, labels).mean(axis=0)`.

    Args:
      logits: [..., n, classes].
      labels: [n] integers.

    Returns:
      [..., n] scores in [0, √2], float32 (or float64 as `logits`); NaN where a logit is
      not finite, and for a label outside the classes.

    Example:
      >>> import jax.numpy as jnp
      >>> logits = jnp.array([[0.0, 0.0], [50.0, 0.0], [50.0, 0.0]])
      >>> print(el2n_scores(logits, jnp.array([0, 0, 1])).round(4))
      [0.7071 0. 1.4142]

    References:
      Paul et al., Deep Learning on a Data Diet: Finding Important Examples Early in
      Training, 2021 (https://arxiv.org/abs/2107.07075).
    """
    logits = widen(logits)
    classes = logits.shape[-1]
    target = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
    target = jnp.broadcast_to(target, logits.shape)
    scores = jnp.linalg.norm(jax.nn.softmax(logits) - target, axis=-1)
    known = (labels >= 0) & (labels < classes)
    return jnp.where(jnp.broadcast_to(known, scores.shape), scores, jnp.nan)


def grand_scores(
    loss_fn: Callable[[Any, Any], Array],
    params: Any,
    examples: Any,
    *,
    microbatch: int | None = None,
) -> Array:
    """The norm of each example's gradient: the GraNd score.

    Average it over a few initializations, very early in training: `jax.vmap` over
    `params`, then `.mean(axis=0)`.

    Args:
      loss_fn: `loss_fn(params, example)`, the loss of one example: a tree like
        `examples` without the leading axis. A model that needs a batch gets it by
        `x[None]`.
      params: where to take the gradients; widened to float32.
      examples: tree of arrays [n, ...].
      microbatch: examples whose gradients are held in memory at once; it need not
        divide n. Default: all.

    Returns:
      [n] norms over the whole parameter tree; NaN where a gradient is not finite.

    Raises:
      ValueError: if `microbatch` is less than one.

    Example:
      >>> import jax.numpy as jnp
      >>> loss = lambda w, x: jnp.vdot(w, x)
      >>> grand_scores(loss, jnp.ones(2), jnp.array([[3.0, 4.0], [0.0, 1.0]])).tolist()
      [5.0, 1.0]

    References:
      Paul et al., Deep Learning on a Data Diet: Finding Important Examples Early in
      Training, 2021 (https://arxiv.org/abs/2107.07075).
    """
    if microbatch is not None and microbatch < 1:
        raise ValueError(f"microbatch: {microbatch}; at least 1 is needed")
    wide = widen(params)

    def norm(example: Any) -> Array:
        gradient = jax.grad(loss_fn)(wide, example)
        return jnp.sqrt(inner(gradient, gradient))

    norms: Array = (
        jax.vmap(norm)(examples)
        if microbatch is None
        else jax.lax.map(norm, examples, batch_size=microbatch)
    )
    return norms


def keep_mask(
    scores: Array, fraction: float | Array, *, offset: float | Array = 0.0
) -> Array:
    """Marks the share of examples with the highest scores.

    Low scores are easy examples, which training can do without; the very highest are
    often mislabeled, and `offset` passes over them.

    Args:
      scores: [n]. A NaN score is never kept.
      fraction: share of the n examples to keep, in [0, 1]; `round(fraction * n)` are.
      offset: share of the examples at the top to drop. Default 0.

    Returns:
      [n] booleans. Ties go to the earlier example.

    Example:
      >>> import jax.numpy as jnp
      >>> scores = jnp.array([0.1, 0.9, 0.5, 0.7])
      >>> keep_mask(scores, 0.5).tolist()
      [False, True, False, True]
      >>> keep_mask(scores, 0.5, offset=0.25).tolist()
      [False, False, True, True]

    References:
      Paul et al., Deep Learning on a Data Diet: Finding Important Examples Early in
      Training, 2021 (https://arxiv.org/abs/2107.07075), sections 3 and 4.
    """
    count = scores.shape[0]
    # Stable, and NaN sorts last.
    order = jnp.argsort(-scores, stable=True)
    rank = jnp.zeros(count, jnp.int32).at[order].set(jnp.arange(count, dtype=jnp.int32))

    def examples(share: float | Array) -> Array:
        share = jnp.asarray(share)
        return jnp.round(share * jnp.asarray(count, share.dtype)).astype(jnp.int32)

    first = examples(offset)
    last = first + examples(fraction)
    return (rank >= first) & (rank < last) & ~jnp.isnan(scores)
