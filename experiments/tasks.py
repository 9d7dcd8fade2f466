"""What a model is trained to do: a batch and a model's ``apply`` give a loss.

A task is ``task(apply, batch) -> (loss, metrics)``: ``apply(inputs)`` runs the
model, ``batch`` is a dict of arrays as the data set stores them, the loss is a
float32 scalar, and metrics are further float32 scalars to record. Both are means over
the examples of the batch. Where the loss is the mean over a number of terms that
differs from batch to batch (tokens that are masked), the task has an attribute
``weight``, from a batch to that number, by which micro-batches are weighted
(`gnomon.experiments.trial.accumulation`), and the batches of an evaluation.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.models import LazyLogits

Apply = Callable[[jax.Array], Any]
Outcome = tuple[jax.Array, dict[str, jax.Array]]


def next_token(apply: Apply, batch: Mapping[str, jax.Array]) -> Outcome:
    """Cross-entropy of the next token, in nats a token.

    The batch holds ``tokens`` [B, T + 1]; the model sees the first T and is asked
    for the last T. The metric ``bits`` is the same loss in bits a token. Where a model
    returns `gnomon.models.LazyLogits`, the logits are computed chunk by chunk.

    With ``config.model.separator``, the token that ends a document, the loss is that of
    `within`: the first token of a document, which nothing before it tells of, does not
    count.
    """
    return _next_token(apply, batch, None)


def within(separator: int) -> Callable[..., Outcome]:
    """`next_token`, without the tokens that come after a separator.

    Args:
      separator: the token that ends a document.

    Returns:
      The task, a mean over the tokens that count; its ``weight`` is their number.
    """

    def counted(batch: Mapping[str, jax.Array]) -> jax.Array:
        return (batch["tokens"][:, :-1].astype(jnp.int32) != separator).astype(float)

    def task(apply: Apply, batch: Mapping[str, jax.Array]) -> Outcome:
        return _next_token(apply, batch, counted(batch))

    def weight(batch: Mapping[str, jax.Array]) -> jax.Array:
        return jnp.sum(counted(batch))

    task.weight = weight  # type: ignore[attr-defined]
    return task


next_token.within = within  # type: ignore[attr-defined]


def _next_token(
    apply: Apply, batch: Mapping[str, jax.Array], weights: jax.Array | None
) -> Outcome:
    tokens = batch["tokens"].astype(jnp.int32)
    logits, labels = apply(tokens[:, :-1]), tokens[:, 1:]
    if isinstance(logits, LazyLogits):
        loss = logits.cross_entropy(labels, weights)
        return loss, {"bits": loss / jnp.log(2.0)}
    losses = optax.softmax_cross_entropy_with_integer_labels(
        logits.astype(jnp.float32), labels
    )
    if weights is None:
        loss = jnp.mean(losses)
    else:
        weights = weights.astype(losses.dtype)
        loss = jnp.sum(losses * weights) / jnp.maximum(jnp.sum(weights), 1)
    return loss, {"bits": loss / jnp.log(2.0)}


def classification(apply: Apply, batch: Mapping[str, jax.Array]) -> Outcome:
    """Cross-entropy of the class, in nats an example, with the accuracy.

    The batch holds ``image`` (uint8 is scaled to [0, 1]) or ``features``, and
    ``label`` [B].
    """
    inputs = batch["image"] if "image" in batch else batch["features"]
    label = batch["label"].astype(jnp.int32)
    if inputs.dtype == jnp.uint8:
        inputs = inputs.astype(jnp.float32) / 255.0
    logits = apply(inputs).astype(jnp.float32)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    correct = jnp.argmax(logits, axis=-1) == label
    return jnp.mean(losses), {"accuracy": jnp.mean(correct.astype(jnp.float32))}


def rating(apply: Apply, batch: Mapping[str, jax.Array]) -> Outcome:
    """Squared error of a prediction, with its root over the batch.

    The batch holds ``pair`` [B, 2], which the model sees, and ``rating`` [B].
    """
    errors = apply(batch["pair"]).astype(jnp.float32) - batch["rating"]
    loss = jnp.mean(jnp.square(errors))
    return loss, {"rmse": jnp.sqrt(loss)}
