"""Names of leaves: a key path as the string that rules, masks and probes match."""

from typing import Any

import jax
from jax.tree_util import GetAttrKey

# A box around an array (an nnx Variable, a linen Partitioned) is a node of its own in
# some trees of a model and none in others: flax's nnx.Optimizer shows an optimizer
# head/kernel/value where it initializes and head/kernel where it updates.
BOXES = ("value", "raw_value")


def path_string(path: tuple[Any, ...]) -> str:
    """A JAX key path as the names that rules match, joined by ``/``.

    The attribute by which a box (``nnx.Param``, ``nn.Partitioned``) holds its array is
    no name: a leaf has one path, boxed or not.

    Args:
      path: a key path, as ``jax.tree_util.tree_map_with_path`` hands out.

    Returns:
      For example ``"blocks/0/query/kernel"``.

    Example:
      >>> tree = {"blocks": [{"query": {"kernel": 1.0}}]}
      >>> [(path, _)] = jax.tree_util.tree_leaves_with_path(tree)
      >>> path_string(path)
      'blocks/0/query/kernel'
      >>> path_string((*path, GetAttrKey("value")))
      'blocks/0/query/kernel'
    """
    if len(path) > 1 and path[-1] in map(GetAttrKey, BOXES):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")
