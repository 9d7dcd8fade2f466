"""Which leaves a method acts on, and which layer of a network each belongs to."""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
import optax

from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import matches, stack_of
from gnomon.parameters.trees import broadcast_mask

# A regex found in the path, a tree of bools (or a prefix of one), or a function of the
# parameters that returns such a tree.
Where: TypeAlias = str | optax.MaskOrFn

# The first name that is a number or ends in one: blocks/0, layers_0.
LAYER = r"(?:^|/)(?:[^/]*_)?(\d+)(?=/)"


def select(
    params: optax.Params,
    where: Where | None,
    default: Callable[[], Any],
    name: str,
    stacked: str | None = None,
) -> Any:
    """Spreads a selection over the leaves of the parameters.

    Args:
      params: the parameters.
      where: a regex, a mask, a function that returns a mask, or None.
      default: what None stands for, a function that returns a tree of bools.
      name: the argument's name, for the message.
      stacked: regex of further leaves that stack layers along axis 0. A regex may be
        written for the names of either, and a function sees one layer of each leaf.

    Returns:
      A tree with the structure of ``params`` and one bool a leaf.

    Raises:
      ValueError: if a regex, or the default, selects no leaf.

    Example:
      >>> params = {"mlp": {"kernel": np.ones((2, 3)), "bias": np.ones(3)}}
      >>> select(params, "kernel$", lambda: params, "constrained")
      {'mlp': {'bias': False, 'kernel': True}}
    """
    if where is None:
        return default()
    # A tree without leaves is a placeholder (an abstract init, or all leaves masked).
    if not jax.tree.leaves(params):
        return params
    if not isinstance(where, str):
        return broadcast_mask(where, params, stacked)
    chosen = jax.tree_util.tree_map_with_path(
        lambda path, leaf: matches(where, path_string(path), np.shape(leaf), stacked),
        params,
    )
    if not any(jax.tree.leaves(chosen)):
        leaves = jax.tree_util.tree_leaves_with_path(chosen)
        paths = [path_string(path) for path, _ in leaves]
        raise ValueError(
            f"{name}={where!r} matches no parameter path. Paths: "
            f"{', '.join(paths[:20])}{', ...' * (len(paths) > 20)}."
        )
    return chosen


def layer_number(
    path: str, shape: tuple[int, ...], pattern: str, stacked: str | None = None
) -> Any:
    """The one-based number of the layer that a leaf belongs to.

    Args:
      path: names from the root to the leaf, joined by ``/``.
      shape: shape of the leaf as stored.
      pattern: regex whose first group is the zero-based index, default ``LAYER``.
      stacked: regex of further leaves that stack layers along axis 0, or None.

    Returns:
      An array of one number, or for a stacked leaf of one number a layer, shaped to
      broadcast against the leaf; None outside the layers.

    Example:
      >>> print(layer_number("blocks/2/mlp/kernel", (4, 4), LAYER, None))
      [[3]]
      >>> print(layer_number("blocks/mlp/kernel", (2, 4, 4), LAYER, "^blocks/").ravel())
      [1 2]
      >>> layer_number("embed/embedding", (8, 4), LAYER, None)
    """
    if stack_of(path, len(shape), stacked).axes:
        return np.arange(1, shape[0] + 1).reshape((-1,) + (1,) * (len(shape) - 1))
    found = re.search(pattern, path)
    if found is None:
        return None
    return np.full((1,) * len(shape), int(found[1]) + 1)
