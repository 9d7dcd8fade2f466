"""What a tree of arrays looks like, node by node, in words that can be compared."""

from collections.abc import Iterator
from typing import Any

import jax

# Containers whose name says nothing about what was saved.
_PLAIN = (dict, list, tuple, type(None))


def path_name(path: tuple[Any, ...]) -> str:
    """Writes a key path as `opt_state/0/mu/w`."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaf_type(leaf: Any) -> str:
    """Describes a leaf: `f32[64,256]`, `key<fry>[]`, or `int` for a Python number.

    Example:
      >>> import numpy as np
      >>> leaf_type(np.zeros((2, 3), np.float32)), leaf_type(jax.random.key(0))
      ('f32[2,3]', 'key<fry>[]')
    """
    if not hasattr(leaf, "dtype") or not hasattr(leaf, "shape"):
        return type(leaf).__name__
    name = str(leaf.dtype)
    # bfloat16 first: it ends in "float16".
    for long, short in (("bfloat", "bf"), ("float", "f"), ("uint", "u"), ("int", "i")):
        if name.startswith(long):
            name = short + name.removeprefix(long)
            break
    return f"{name}[{','.join(str(size) for size in leaf.shape)}]"


def signature(tree: Any) -> list[tuple[str, str]]:
    """Lists the path and the description of every leaf and named container.

    Named tuples and other registered classes are listed by their name, so the state
    of one optimizer differs from another's even where both hold the same arrays.
    Dictionaries, lists, tuples and `None` are seen through their contents alone.

    Args:
      tree: A pytree of arrays, `ShapeDtypeStruct`s or Python numbers.

    Returns:
      (path, description) pairs, parents before children.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> params = {"w": jnp.zeros((2,))}
      >>> state = optax.scale_by_rms().init(params)
      >>> signature({"params": params, "state": state})[:2]
      [('params/w', 'f32[2]'), ('state', 'ScaleByRmsState')]
    """
    return list(_walk(tree, ()))


def _walk(node: Any, path: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    # One level at a time: everything below `node` counts as a leaf.
    children, _ = jax.tree_util.tree_flatten_with_path(
        node, is_leaf=lambda x: x is not node
    )
    if len(children) == 1 and not children[0][0]:
        yield path_name(path), leaf_type(node)
        return
    if type(node) not in _PLAIN:
        yield path_name(path), type(node).__qualname__
    for key, child in children:
        yield from _walk(child, path + key)


def first_difference(
    saved: list[tuple[str, str]], wanted: list[tuple[str, str]]
) -> str | None:
    """Says in words where two signatures first differ; `None` when they are equal.

    Example:
      >>> first_difference([("w", "f32[2]")], [("w", "f32[3]")])
      'the checkpoint has w f32[2]; this run has w f32[3]'
      >>> first_difference([("b", "f32[2]"), ("w", "f32[2]")], [("w", "f32[2]")])
      'the checkpoint has b f32[2]; this run has no b'
    """
    for (path, kind), (other_path, other_kind) in zip(saved, wanted, strict=False):
        if path == other_path and kind != other_kind:
            return f"the checkpoint has {path} {kind}; this run has {path} {other_kind}"
        if path != other_path:
            if path not in dict(wanted):
                return f"the checkpoint has {path} {kind}; this run has no {path}"
            return (
                f"the checkpoint has no {other_path}; "
                f"this run has {other_path} {other_kind}"
            )
    if len(saved) > len(wanted):
        path, kind = saved[len(wanted)]
        return f"the checkpoint has {path} {kind}; this run has no {path}"
    if len(wanted) > len(saved):
        path, kind = wanted[len(saved)]
        return f"the checkpoint has no {path}; this run has {path} {kind}"
    return None
