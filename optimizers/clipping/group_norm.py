"""Clipping by group: each component of a model has a bound of its own."""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.per_layer import per_layer
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_within
from gnomon.parameters.paths import path_string
from gnomon.parameters.trees import compute_dtype, is_function

__all__ = ["clip_by_group_norm"]

# Ordered (regex, label) pairs, a function of the parameters, or a tree of strings.
Labels = Any


def clip_by_group_norm(
    max_norm: jax.typing.ArrayLike, labels: Labels, *, stacked: str | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Clips the norm of every group of leaves.

    For a group :math:`G` of leaves, with :math:`\|g_G\|` the norm of all their numbers,

    .. math::
      g_G \leftarrow g_G \min(1, c / \|g_G\|).

    Args:
      max_norm: the bound :math:`c` of every group; the authors use about 0.15.
      labels: the groups: a tree of strings with the structure of the parameters, or a
        prefix of one, or a function of the parameters that returns such a tree; or
        ordered ``(regex, label)`` pairs, of which the first that is found in a leaf's
        path decides, and leaves that none is found in are left alone.
      stacked: regex of the leaves that stack layers along axis 0. Labels are those of
        the layers one by one.

    Returns:
      The transform.

    Raises:
      ValueError: if ``max_norm`` is not one number or out of range, or a regex matches
        no leaf.

    Example:
      >>> clip = clip_by_group_norm(1.0, [("query|key", "scores"), ("mlp", "mlp")])
      >>> g = {"query": jnp.array([3.0]), "key": jnp.array([4.0]),
      ...      "mlp": jnp.array([0.5]), "other": jnp.array([9.0])}
      >>> for name, leaf in clip.update(g, clip.init(g))[0].items():
      ...     print(name, leaf)
      key [0.8]
      mlp [0.5]
      other [9.]
      query [0.6]

    References:
      Yang and Ma, `Improving Stability of Fine-Tuning Pretrained Language Models via
      Component-Wise Gradient Norm Clipping <https://arxiv.org/abs/2210.10325>`_, 2022

    Differences:
      The authors' trainer clips every tensor by itself, which is a label a leaf. It is
      what ``optax.partition`` of ``optax.clip_by_global_norm`` does, with norms in
      float32 and layers of a stack apart.
    """
    require_within("[0, inf]", max_norm=max_norm)

    def groups(tree: Any) -> list[str | None]:
        """The label of every leaf, in order."""
        if not jax.tree.leaves(tree):  # a placeholder, or all leaves masked
            return []
        if isinstance(labels, list | tuple):
            return _by_path(labels, tree)
        found = labels(tree) if is_function(labels) else labels
        named = jax.tree.map(
            lambda label, part: jax.tree.map(lambda _: label, part), found, tree
        )
        return jax.tree.leaves(named)

    def init_fn(params: Any) -> optax.EmptyState:
        groups(params)  # refuses a regex that matches nothing
        return optax.EmptyState()

    def update_fn(
        updates: Any, state: optax.EmptyState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, optax.EmptyState]:
        leaves: list[Any] = jax.tree.leaves(updates)
        names = groups(updates)
        squares: dict[str | None, jax.Array] = {}
        for leaf, name in zip(leaves, names, strict=True):
            wide = leaf.astype(compute_dtype(leaf.dtype))
            total = jnp.sum(jnp.square(wide)).astype(float)
            squares[name] = squares[name] + total if name in squares else total

        def clipped(leaf: Any, name: str | None) -> Any:
            if name is None:
                return leaf
            norm = jnp.sqrt(squares[name])
            bound = jnp.asarray(max_norm, norm.dtype)
            scale = jnp.where(norm > bound, bound / jnp.where(norm > 0, norm, 1), 1)
            dtype = compute_dtype(leaf.dtype)
            return (leaf.astype(dtype) * scale.astype(dtype)).astype(leaf.dtype)

        moved = [clipped(*pair) for pair in zip(leaves, names, strict=True)]
        return jax.tree.unflatten(jax.tree.structure(updates), moved), state

    return per_layer(
        transformation("clip_by_group_norm", init_fn, update_fn), stacked=stacked
    )


def _by_path(pairs: Sequence[tuple[str, str]], tree: Any) -> list[str | None]:
    paths = [path_string(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    for pattern, _ in pairs:
        if not any(re.search(pattern, path) for path in paths):
            raise ValueError(f"no parameter path matches {pattern!r} of labels.")
    claims = ([n for pattern, n in pairs if re.search(pattern, path)] for path in paths)
    return [names[0] if names else None for names in claims]
