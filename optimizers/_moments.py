"""First moments inside the state of any optimizer, found by the names of fields."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax.tree_util import GetAttrKey

# Fields that hold an average of directions. A second moment is not one: it must stay
# positive, and is no vector of the weights' space.
FIRST_MOMENTS = frozenset({"mu", "trace", "m", "momentum", "exp_avg"})


def map_first_moments(
    fn: Callable[[Any], Any], state: optax.OptState, params: optax.Params
) -> optax.OptState:
    """Applies a function to every tree of first moments in a state.

    A tree of first moments is what lies under a field named in ``FIRST_MOMENTS``, at
    the path and with the shape of a parameter. Leaves that the state does not hold (of
    another group of ``optax.partition``, for example) are None in the tree.

    Args:
      fn: maps a tree with the structure of ``params`` to another such tree.
      state: a state of any nesting of transforms.
      params: the parameters.

    Returns:
      The state with the moments mapped, each in its own dtype.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"w": jnp.array([1.0])}
      >>> sgd = optax.sgd(0.1, momentum=0.9)
      >>> _, state = sgd.update(params, sgd.init(params), params)
      >>> double = lambda tree: jax.tree.map(lambda x: 2 * x, tree)
      >>> mapped = map_first_moments(double, state, params)
      >>> print(state[0].trace["w"], mapped[0].trace["w"])
      [1.] [2.]
    """
    treedef: Any  # jax declares no methods for it
    targets, treedef = jax.tree_util.tree_flatten_with_path(params)
    shapes = {path: np.shape(leaf) for path, leaf in targets}
    entries, state_def = jax.tree_util.tree_flatten_with_path(state)
    leaves = [leaf for _, leaf in entries]
    groups: dict[Any, dict[Any, int]] = {}
    for position, (path, leaf) in enumerate(entries):
        for depth, key in enumerate(path):
            rest = path[depth + 1 :]
            if (
                isinstance(key, GetAttrKey)
                and key.name in FIRST_MOMENTS
                and shapes.get(rest) == np.shape(leaf)
            ):
                groups.setdefault(path[: depth + 1], {})[rest] = position
    for found in groups.values():
        tree = jax.tree.unflatten(
            treedef,
            [leaves[found[path]] if path in found else None for path, _ in targets],
        )
        mapped = treedef.flatten_up_to(fn(tree))
        for (path, _), leaf in zip(targets, mapped, strict=True):
            if path in found:
                leaves[found[path]] = leaf.astype(leaves[found[path]].dtype)
    return jax.tree.unflatten(state_def, leaves)
