"""The loss of a batch and its gradient, of all of it or micro-batch by micro-batch.

    config.batch, config.accumulate = 512, 64

takes 512 examples a step, 8 at a time: one `jax.lax.scan` over the micro-batches, which
holds the activations of one of them and the sum of the gradients in float32. With

.. math:: L = \\sum_i s_i L_i, \\qquad \\nabla L = \\sum_i s_i \\nabla L_i, \\qquad
    s_i = w_i / \\textstyle\\sum_j w_j

loss and gradient are those of the whole batch, to rounding. The weights w are equal,
or, where a task's loss is the mean over a number of terms that differs from batch to
batch, what its attribute ``weight`` says: ``task.weight(batch)``, the number of terms.

Metrics are averaged with the same weights: one that is no mean over the examples, a
root of a mean for instance, becomes the average of those of the micro-batches. Batch
normalization normalizes each micro-batch by itself and updates its running statistics
one micro-batch after another, as so many smaller steps would. Micro-batch i draws its
random numbers (dropout) from ``fold_in(key, i)``, the key being that of the step.
Micro-batch i takes the examples i, i + n, i + 2 n, ... of n of them, so that on a mesh
each device cuts its own.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.parameters.trees import compute_dtype

Batch = Mapping[str, jax.Array]
Aux = tuple[dict[str, jax.Array], Any, Any]
# (params, statistics, batch, key) -> loss, (metrics, new statistics, outputs)
LossFn = Callable[[Any, Any, Batch, jax.Array], tuple[jax.Array, Aux]]
Look = Callable[[Any], Any]


class Taken(NamedTuple):
    """What one evaluation of the loss gave.

    Attributes:
      loss: of the batch.
      metrics: of the batch, by name.
      stats: the new statistics.
      grads: the gradients, or None where they were not asked for.
      looked: what was asked of the outputs; with a leading axis over micro-batches
        where there are any.
    """

    loss: jax.Array
    metrics: dict[str, jax.Array]
    stats: Any
    grads: Any
    looked: Any


class Objective(NamedTuple):
    """The loss of a batch as functions of the parameters.

    Attributes:
      value: ``params -> loss``; it can be differentiated, in the memory of one
        micro-batch.
      grad: ``params -> gradients``.
      take: ``(params, look) -> Taken``, with gradients; ``look(outputs)`` is asked of
        what the model put out.
    """

    value: Callable[[Any], jax.Array]
    grad: Callable[[Any], Any]
    take: Callable[[Any, Look], Taken]


def whole(loss_fn: LossFn, stats: Any, batch: Batch, key: jax.Array) -> Objective:
    """The objective of a batch taken at once."""

    def loss(params):
        return loss_fn(params, stats, batch, key)

    def value(params):
        return loss(params)[0]

    def take(params, look):
        (found, (metrics, new, outputs)), grads = jax.value_and_grad(
            loss, has_aux=True
        )(params)
        return Taken(found, metrics, new, grads, look(outputs))

    return Objective(value, jax.grad(value), take)


def accumulated(
    loss_fn: LossFn,
    stats: Any,
    batch: Batch,
    key: jax.Array,
    *,
    parts: int,
    weight: Callable[[Batch], jax.Array] | None,
) -> Objective:
    """The objective of a batch taken in micro-batches.

    Args:
      loss_fn: the loss of a batch of any size.
      stats: the statistics before the step.
      batch: arrays [examples, ...].
      key: the random key of the step.
      parts: how many micro-batches; it divides the examples.
      weight: from a micro-batch to the number of terms of which its loss is the mean;
        None where these are as many in each.

    Returns:
      The objective; gradients have the dtypes of the parameters, rounded once.
    """
    micro = jax.tree.map(lambda x: _cut(x, parts), batch)
    shares = _shares(micro, parts, weight)
    xs = jnp.arange(parts), shares, micro

    def add(sums, share, found):
        return jax.tree.map(
            lambda s, x: s + share.astype(s.dtype) * x.astype(s.dtype), sums, found
        )

    def take(params, look):
        def step(carry, x):
            sums, running = carry
            index, share, examples = x
            (loss, (metrics, running, outputs)), grads = jax.value_and_grad(
                loss_fn, has_aux=True
            )(params, running, examples, jax.random.fold_in(key, index))
            sums = add(sums, share, (loss, metrics, grads))
            return (sums, running), look(outputs)

        first = jax.tree.map(lambda x: x[0], micro)
        loss, (metrics, *_) = jax.eval_shape(loss_fn, params, stats, first, key)
        zeros = jax.tree.map(_zeros, (loss, metrics, params))
        ((loss, metrics, grads), running), looked = jax.lax.scan(
            step, (zeros, stats), xs
        )
        grads = jax.tree.map(lambda g, w: g.astype(w.dtype), grads, params)
        return Taken(loss, metrics, running, grads, looked)

    def value(params):
        # Kept from each micro-batch is nothing, should this be differentiated.
        @jax.checkpoint
        def step(carry, x):
            total, running = carry
            index, share, examples = x
            loss, (_, running, _) = loss_fn(
                params, running, examples, jax.random.fold_in(key, index)
            )
            return (add(total, share, loss), running), None

        first = jax.tree.map(lambda x: x[0], micro)
        loss, _ = jax.eval_shape(loss_fn, params, stats, first, key)
        (total, _), _ = jax.lax.scan(step, (_zeros(loss), stats), xs)
        return total

    return Objective(value, lambda params: take(params, _nothing).grads, take)


def first_part(batch: Batch, parts: int) -> Batch:
    """The first micro-batch of a batch."""
    return jax.tree.map(lambda x: _cut(x, parts)[0], batch) if parts > 1 else batch


def _cut(x: jax.Array, parts: int) -> jax.Array:
    """[examples, ...] as [parts, examples / parts, ...]."""
    return jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)


def _shares(
    micro: Batch, parts: int, weight: Callable[[Batch], jax.Array] | None
) -> jax.Array:
    """What each micro-batch counts, [parts], of sum 1; of sum 0 if none has a term."""
    if weight is None:
        return jnp.full((parts,), 1 / parts)
    weights = jax.vmap(weight)(micro).astype(jnp.result_type(float))
    return weights / jnp.maximum(jnp.sum(weights), 1)


def _zeros(x: Any) -> jax.Array:
    return jnp.zeros(x.shape, compute_dtype(x.dtype))


def _nothing(outputs: Any) -> None:
    del outputs
