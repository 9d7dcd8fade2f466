"""Random numbers in the shape of the parameters."""

from collections.abc import Callable
from typing import Any

import jax

from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import Stacks


def draw(
    key: jax.Array,
    params: Any,
    sample: Callable[..., jax.Array],
    stacked: str | None = None,
) -> Any:
    """A draw of its own for every leaf, layer by layer.

    Stacked layers get the numbers of a list of them.

    Args:
      key: the key of all.
      params: a tree of arrays or shapes.
      sample: ``sample(key, shape, dtype)`` draws for one leaf or layer.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The draws, a tree with the structure of ``params``.

    Example:
      >>> import jax.numpy as jnp
      >>> params = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros(2)}
      >>> signs = draw(jax.random.key(0), params, jax.random.rademacher)
      >>> print(abs(signs["kernel"]))
      [[1. 1.]
       [1. 1.]]
    """
    layers = Stacks(params, stacked)
    flat, treedef = jax.tree_util.tree_flatten_with_path(layers.unstack(params))
    # By name, because lists and dictionaries have the layer 10 in different places.
    names = [tuple(path_string(path).split("/")) for path, _ in flat]
    keys = jax.random.split(key, max(len(flat), 1))
    own = dict(zip(sorted(names), keys, strict=False))
    drawn = [
        sample(own[name], leaf.shape, leaf.dtype)
        for name, (_, leaf) in zip(names, flat, strict=True)
    ]
    return layers.restack(jax.tree.unflatten(treedef, drawn))
