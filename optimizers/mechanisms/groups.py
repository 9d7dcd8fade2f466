"""Parameter groups: ordered rules say which optimizer moves a leaf, and how far."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.inner import complete
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_within
from gnomon.parameters.rules import deciding
from gnomon.parameters.trees import compute_dtype, map_leaves

__all__ = ["parameter_groups", "scale_by_group"]


def parameter_groups(
    groups: Sequence[tuple[str, optax.GradientTransformation]],
    *,
    stacked: str | None = None,
    name: str = "parameter_groups",
) -> optax.GradientTransformationExtraArgs:
    """Gives each group of parameters an optimizer of its own.

    The first rule that fits a leaf decides (:mod:`gnomon.parameters.rules`). Every leaf
    is covered, and every rule decides for one at least, so that a name that changed, or
    was misspelt, is an error and not a model that is half trained.

    Args:
      groups: ordered ``(rule, optimizer)`` pairs. A rule is a regex found in the path,
        or ``role:embedding``, ``role:hidden``, ``role:head``, ``role:gain``,
        ``role:bias``; the last may be ``""`` for the rest. An optimizer that stands in
        several pairs, the same object, moves their leaves together: what it computes
        over a tree, such as a global norm, it computes over all of them.
      stacked: regex of further leaves that stack layers along axis 0.
      name: what the rules are called in messages.

    Returns:
      The optimizer; ``optax.partition`` underneath, whose state it has. Each optimizer
      sees its own leaves, of the extra arg ``grad`` too, and treats stacked layers as
      a list of layers.

    Raises:
      ValueError: if a leaf is not covered, with the closest rule; a rule decides
        nothing, is no regex or names no role; or an optimizer is known to climb.
      TypeError: if one is no transform.

    Example:
      >>> w = {"embed": jnp.ones((2, 2)), "mlp": {"bias": jnp.ones(1)}}
      >>> optimizer = parameter_groups([
      ...     ("role:embedding", optax.sgd(0.5)), ("", optax.sgd(0.1))])
      >>> updates, _ = optimizer.update(w, optimizer.init(w), w)
      >>> print(updates["embed"][0], updates["mlp"]["bias"])
      [-0.5 -0.5] [-0.1]
      >>> parameter_groups([("bais$", optax.sgd(0.1))]).init(w)
      Traceback (most recent call last):
        ...
      ValueError: parameter_groups: no rule covers 'embed', 'mlp/bias'; the closest to
      'embed' is 'bais$'. End with '' to cover the rest.

    Differences:
      ``optax.partition`` takes labels in place of rules, and says nothing of a
      transform that no leaf is labeled with.
    """
    patterns = [rule for rule, _ in groups]
    distinct = {id(optimizer): optimizer for _, optimizer in groups}
    label_of = {key: f"group_{at}" for at, key in enumerate(distinct)}
    labels = [label_of[id(optimizer)] for _, optimizer in groups]
    parts = optax.partition(
        {
            label_of[key]: layered(complete(optimizer), stacked)
            for key, optimizer in distinct.items()
        },
        lambda tree: jax.tree.map(
            lambda at: labels[at], deciding(tree, patterns, name, stacked)
        ),
        mask_compatible_extra_args=True,
    )
    return transformation(name, parts.init, parts.update, complex_leaves=True)


def scale_by_group(
    groups: Sequence[tuple[str, jax.typing.ArrayLike]],
    *,
    stacked: str | None = None,
    name: str = "scale_by_group",
) -> optax.GradientTransformationExtraArgs:
    r"""Multiplies the updates of each group of parameters by a number of its own.

    Behind an optimizer the number is a multiplier of the learning rate, and of decay
    that the learning rate scales: :math:`u_G \leftarrow c_G\, u_G`.

    Args:
      groups: ordered ``(rule, multiplier)`` pairs, as of :func:`parameter_groups`; a
        multiplier is at least 0, and 0 freezes the group.
      stacked: regex of further leaves that stack layers along axis 0.
      name: what the rules are called in messages.

    Returns:
      The transform; products are taken in float32 and rounded once.

    Raises:
      ValueError: if a leaf is not covered, a rule decides nothing, or a multiplier is
        not one number or out of range.

    Example:
      >>> w = {"embed": jnp.ones(2), "mlp": {"bias": jnp.ones(1)}}
      >>> scale = scale_by_group([("^embed", 0.5), ("", 1.0)])
      >>> print(scale.update(w, scale.init(w))[0]["embed"])
      [0.5 0.5]
    """
    patterns = [rule for rule, _ in groups]
    numbers = [number for _, number in groups]
    for number in numbers:
        require_within("[0, inf)", multiplier=number)

    def init_fn(params: Any) -> optax.EmptyState:
        deciding(params, patterns, name, stacked)  # refuses rules that do not cover
        return optax.EmptyState()

    def scaled(update: jax.Array, at: int) -> tuple[jax.Array]:
        dtype = compute_dtype(update.dtype)
        product = update.astype(dtype) * jnp.asarray(numbers[at], dtype)
        return (product.astype(update.dtype),)

    def update_fn(
        updates: Any, state: optax.EmptyState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, optax.EmptyState]:
        del params, extra_args
        chosen = deciding(updates, patterns, name, stacked)
        (moved,) = map_leaves(scaled, updates, (), chosen)
        return moved, state

    return transformation(name, init_fn, update_fn)
