r"""What a leaf is for: embedding, hidden matrix, head, gain or bias.

The one answer for methods that treat these apart. It follows from a leaf's path and
rank, by the first of

=============  ====================================================================
role           leaves
=============  ====================================================================
bias           no units, and a name that ends in ``bias`` or is ``b``
gain           no units, whatever else
embedding      a name ``embed``, ``embedding``, ``Embed_0``, ... on its path
head           a name ``head``, ``lm_head``, ``logits``, ``classifier``, ``readout``,
               ``output``, ``output_layer``, ``unembed`` on its path, and no layer that
               is stacked before it, nor, if there are several, one that is counted
head, a guess  where no name says head: a layer ``out`` at the root; or the last of the
               dense layers that the model itself counts, ``Dense_2``, ``layers_2``,
               ``layers/4`` or ``linear3``
hidden         all other leaves with units
=============  ====================================================================

A guess is said aloud, once a leaf, by a :class:`UserWarning`. Layers that are stacked
are alike, so that none of them is guessed to be the head.
"""

import functools
import re
import warnings
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax

from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import stack_of
from gnomon.parameters.units import Axes, Rules, resolve_axes

Kind = Literal["embedding", "hidden", "head", "gain", "bias"]

EMBEDDING = r"(?i)(?:^|(?<=/))(?:[^/]*_)?embed(?:ding|dings|der)?(?:_?\d+)?(?=/|$)"
HEAD = (
    r"(?i)(?:^|(?<=/))(?:(?:[^/]*_)?(?:head|logits|classifier|readout)"
    r"|output(?:_layer|_dense|_proj)?|(?:[^/]*_)?unembed(?:ding)?)(?:_?\d+)?(?=/|$)"
)
# A layer that is counted, ``layer/3``, ``layers_3`` or a list's ``3``: what a name says
# behind it is said of every layer, such as the output matrix of a block's MLP.
_IN_A_LAYER = re.compile(r"(?:^|/)(?:\d+|[^/]*[^/\d]_?\d+)/")
# Said of the last layer as well as of a part of a block.
_OUT = re.compile(r"(?i)^(?:params/)?out(?:_proj|_layer)?$")
_BIAS = re.compile(r"(^|[/_])(bias|b)$")
# Dense layers that are counted: by linen, by a sequence, by hand.
_COUNTED = re.compile(r"(?i)^[^/]*(?:dense|linear|fc|layers?)[^/\d]*[_/]?(\d+)$")


class Role(NamedTuple):
    """What a leaf is for."""

    role: Kind
    reason: str  # why, for messages
    guess: bool = False  # whether no name says it


_PLAIN = Role("hidden", "it has units")
_WITH_UNITS = ("embedding", "hidden", "head")


def roles(
    params: optax.Params, rules: Rules | None = None, stacked: str | None = None
) -> Any:
    """The :class:`Role` of every leaf.

    Args:
      params: a tree of arrays or ``jax.ShapeDtypeStruct``.
      rules: ordered ``(regex, axes)`` pairs, see `units.resolve_axes`.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      A tree of :class:`Role` with the structure of ``params``. Guesses are in it; who
      acts on one calls :func:`warn_of_guesses`.

    Raises:
      ValueError: as `units.resolve_axes`.

    Example:
      >>> shape = jax.ShapeDtypeStruct((4, 4), "float32")
      >>> params = {f"Dense_{i}": {"kernel": shape} for i in range(3)}
      >>> for name, layer in roles(params).items():
      ...     print(name, layer["kernel"].role, layer["kernel"].guess)
      Dense_0 hidden False
      Dense_1 hidden False
      Dense_2 head True
    """
    axes = resolve_axes(params, rules, stacked)
    flat = jax.tree_util.tree_leaves_with_path(params)
    heads = (re.search(HEAD, path_string(path)) for path, _ in flat)
    sole = len({h.string[: h.end()] for h in heads if h}) == 1
    found = jax.tree_util.tree_map_with_path(
        lambda path, leaf, axes: _by_name(
            path_string(path), np.ndim(leaf), axes, stacked, sole
        ),
        params,
        axes,
    )
    leaves = jax.tree_util.tree_leaves_with_path(
        found, is_leaf=lambda node: isinstance(node, Role)
    )
    by_path = {path_string(path): role for path, role in leaves}
    guessed = _last_layer(by_path)
    if guessed is None:
        return found
    reason = (
        f"its name {guessed!r}"
        if _OUT.search(guessed)
        else f"the last of the dense layers that are counted, {guessed!r}"
    )

    def with_guess(path: tuple[Any, ...], role: Role) -> Role:
        if role.role != "hidden" or _module(path_string(path)) != guessed:
            return role
        return Role("head", reason, guess=True)

    return jax.tree_util.tree_map_with_path(
        with_guess, found, is_leaf=lambda node: isinstance(node, Role)
    )


def warn_of_guesses(found: Any, method: str, remedy: str) -> None:
    """Warns, once a leaf and method, of leaves left to a guess.

    Args:
      found: a tree of :class:`Role`.
      method: who acts on it.
      remedy: how to say it without a guess.
    """
    leaves = jax.tree_util.tree_leaves_with_path(
        found, is_leaf=lambda node: isinstance(node, Role)
    )
    for path, role in leaves:
        if isinstance(role, Role) and role.guess:
            _warn(method, path_string(path), role.reason, remedy)


@functools.cache
def _warn(method: str, path: str, reason: str, remedy: str) -> None:
    warnings.warn(
        f"{method} takes {path!r} for an output layer, a guess: {reason}. Call the "
        f"layer 'head', or {remedy}.",
        UserWarning,
        stacklevel=2,
    )


def _by_name(path: str, ndim: int, axes: Axes, stacked: str | None, sole: bool) -> Role:
    """By the leaf's own path, and whether one module alone is called a head."""
    layer = stack_of(path, ndim, stacked).path()
    if not axes.reduce:
        kind: Kind = "bias" if _BIAS.search(layer) else "gain"
        return Role(kind, "it has no units")
    for kind, pattern in (("embedding", EMBEDDING), ("head", HEAD)):
        named = re.search(pattern, layer)
        inside = kind == "head" and named and _is_inside(named, axes, sole)
        if named is not None and not inside:
            return Role(kind, f"its path has the name {named[0]!r}")
    return Role("hidden", "layers are stacked in it") if axes.stack else _PLAIN


def _is_inside(named: re.Match[str], axes: Axes, sole: bool) -> bool:
    """Whether a name stands within a layer that the model has several of."""
    before = named.string[: named.start()]
    return bool(axes.stack) or (not sole and _IN_A_LAYER.search(before) is not None)


def _module(path: str) -> str:
    return path.rpartition("/")[0]


def _last_layer(found: dict[str, Role]) -> str | None:
    """The module that is the head, where no name says so."""
    units = [path for path, role in found.items() if role.role in _WITH_UNITS]
    if len(units) < 2 or any(found[path].role == "head" for path in units):
        return None
    out = {_module(path) for path in units if _OUT.search(_module(path))}
    if len(out) == 1:
        return out.pop()
    modules = [path.split("/")[:-1] for path in units]
    # What all have in common names the model, or is a box around it.
    common = 0
    while all(
        len(m) > common and m[: common + 1] == modules[0][: common + 1] for m in modules
    ):
        common += 1
    candidates = []
    for path, names in zip(units, modules, strict=True):
        own = names[common:]
        # In a sequence only the list has a name.
        if len(own) == 1 and own[0].isdigit():
            own = [names[common - 1] if common else "layers", *own]
        counted = _COUNTED.search("/".join(own))
        if counted and found[path] == _PLAIN:
            candidates.append((int(counted[1]), _module(path)))
    return max(candidates)[1] if candidates else None
