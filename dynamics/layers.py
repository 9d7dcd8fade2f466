"""Which leaves make up which layer: the one grouping that all probes share."""

import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import unstack

ALL = "all"  # the name that stands for the whole model


class Layers(NamedTuple):
    """A grouping of a tree's leaves, known before compilation.

    Attributes:
      names: the layers, in the order of their first leaf.
      groups: for each leaf, in the order of ``jax.tree.leaves``, its layer's position
        in ``names``, or -1 where it belongs to none.
      paths: for each leaf, the names from the root to it, joined by ``/``.
      stacked: regex of further leaves that stack layers along axis 0, beside those that
        their names declare.
    """

    names: tuple[str, ...]
    groups: tuple[int, ...]
    paths: tuple[str, ...]
    stacked: str | None = None


def layers_of(
    params: Any, pattern: str | None = None, *, stacked: str | None = None
) -> Layers:
    r"""Groups the leaves of a tree into layers by their paths.

    Layers that are stacked in one leaf (:mod:`gnomon.parameters.stacks`) count as a
    list of layers: leaves, paths and names here and in all that takes a `Layers` are
    those of the model whose layers are not scanned.

    Args:
      params: a tree of arrays or ``jax.ShapeDtypeStruct``.
      pattern: a regex looked for in each leaf's path (``re.search``); the text it
        finds, its groups joined by ``/`` if it has any, is the layer's name, and a leaf
        without a match is in no layer (only in the whole model). By default
        the path without its last name: the module that owns the leaf.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      The grouping.

    Raises:
      ValueError: if ``pattern`` is not a regex, matches no leaf, or names a layer
        ``all``.

    Example:
      >>> params = {"blocks": {"0": {"up": {"kernel": jnp.ones((2, 4))},
      ...                            "down": {"kernel": jnp.ones((4, 2))}}},
      ...           "embed": {"embedding": jnp.ones((8, 2))}}
      >>> layers_of(params).names
      ('blocks/0/down', 'blocks/0/up', 'embed')
      >>> layers_of(params, r"blocks/\d+|embed").names
      ('blocks/0', 'embed')
      >>> layers_of(params, r"blocks/\d+/(up|down)").groups
      (0, 1, -1)
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(unstack(params, stacked))
    paths = tuple(path_string(path) for path, _ in flat)
    try:
        compiled = None if not pattern else re.compile(pattern)
    except re.error as error:
        raise ValueError(f"layers={pattern!r} is not a regex: {error}") from error
    found = [_name(path, compiled) for path in paths]
    names = tuple(dict.fromkeys(name for name in found if name is not None))
    if paths and not names:
        raise ValueError(
            f"layers={pattern!r} matches no parameter path. Paths: "
            f"{', '.join(paths[:20])}{', ...' * (len(paths) > 20)}."
        )
    if ALL in names:
        raise ValueError(
            f"a layer may not be called {ALL!r}, the name of the whole model; "
            "give layers=... a regex that finds another name"
        )
    groups = tuple(-1 if name is None else names.index(name) for name in found)
    return Layers(names, groups, paths, stacked)


def _name(path: str, pattern: re.Pattern[str] | None) -> str | None:
    if pattern is None:
        # A bare leaf is its own layer.
        return path.rpartition("/")[0] or path or "params"
    match = pattern.search(path)
    if match is None:
        return None
    return "/".join(part for part in match.groups() if part) or match[0]


def pool(tree: Any, layers: Layers) -> Any:
    """Adds up what was measured leaf by leaf, layer by layer and over the whole model.

    Args:
      tree: a tree of arrays [leaves, ...] of sums that add over leaves.
      layers: the grouping.

    Returns:
      The same tree with arrays [layers + 1, ...]; the last row is the whole model.

    Example:
      >>> layers = Layers(("a", "b"), (0, 1, 1, -1), ("a/w", "b/w", "b/c", "d"))
      >>> print(pool(jnp.array([1.0, 2.0, 3.0, 4.0]), layers))
      [ 1.  5. 10.]
    """

    def add(leaf: jax.Array) -> jax.Array:
        if not leaf.shape[0]:
            return jnp.zeros((1, *leaf.shape[1:]), leaf.dtype)
        # Not a product with a 0/1 matrix: one layer's NaN must not reach the others.
        rows = [
            jnp.sum(jnp.stack([leaf[i] for i in members]), axis=0)
            for members in (
                *(
                    [i for i, layer in enumerate(layers.groups) if layer == number]
                    for number in range(len(layers.names))
                ),
                range(len(layers.groups)),
            )
        ]
        return jnp.stack(rows)

    return jax.tree.map(add, tree)
