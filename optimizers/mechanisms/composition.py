"""Combinations of transforms that fight over the same weights, refused by name.

Two transforms that both set the norm of a weight undo each other, and weight decay
under a fixed norm does nothing. Such a mistake trains without an error, so it is
refused where the optimizer is initialized: a transform that controls norms says so
while it initializes what it wraps, and whoever inside claims the same leaf is named.

A wrapper joins with ``norm_control`` around the init of what it wraps::

    with norm_control("lawn", selected, allows_decay=False):
        inner_state = inner.init(params)

and a transform that decays weights joins with one line in its own init::

    refuse_decay("adamp", weight_decay, weight_decay_mask, params)

A wrapper that hands its inner transform another tree (direction and scale in place of
the weight) claims leaves of both trees, by nesting one ``norm_control`` for each.
Claims go by path, so they pass through ``chain``, ``masked``, ``partition`` and the
like. Transforms side by side in a chain do not see each other.
"""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, NamedTuple

import jax
import optax

from gnomon.parameters.checks import ScalarOrSchedule, is_zero
from gnomon.parameters.paths import path_string
from gnomon.parameters.stacks import stack_of
from gnomon.parameters.trees import broadcast_mask


class Claim(NamedTuple):
    """What one enclosing transform controls."""

    owner: str  # its name, for messages
    paths: frozenset[str]  # the leaves it controls
    allows_decay: bool  # whether weight decay makes sense inside it


# A selection has no ranks: that the names fit the leaves was checked before.
_ANY_RANK = 99

_CLAIMS: ContextVar[tuple[Claim, ...]] = ContextVar("norm_control", default=())


def _paths(selected: Any) -> frozenset[str]:
    leaves = jax.tree_util.tree_leaves_with_path(selected)
    # By the names of single layers: an inner transform may be shown those.
    return frozenset(
        stack_of(path_string(path), _ANY_RANK).path()
        for path, chosen in leaves
        if chosen
    )


@contextlib.contextmanager
def norm_control(
    owner: str, selected: Any, *, allows_decay: bool = True
) -> Iterator[None]:
    """Claims the norms of leaves for the time an inner transform is initialized.

    Args:
      owner: the name of the transform, for messages.
      selected: a tree of bools with the structure of the parameters.
      allows_decay: whether transforms inside may decay the claimed leaves.

    Raises:
      ValueError: if an enclosing transform controls one of the leaves already.

    Example:
      >>> with norm_control("lawn", {"kernel": True, "bias": False}):
      ...     with norm_control("hyperball", {"kernel": True, "bias": False}):
      ...         pass
      Traceback (most recent call last):
        ...
      ValueError: lawn wraps hyperball and both control the norm of 'kernel': use one
      of them, or give them different leaves.
    """
    paths = _paths(selected)
    for claim in _CLAIMS.get():
        for path in sorted(claim.paths & paths):
            raise ValueError(
                f"{claim.owner} wraps {owner} and both control the norm of {path!r}: "
                "use one of them, or give them different leaves."
            )
    token = _CLAIMS.set((*_CLAIMS.get(), Claim(owner, paths, allows_decay)))
    try:
        yield
    finally:
        _CLAIMS.reset(token)


def refuse_decay(
    owner: str,
    weight_decay: ScalarOrSchedule,
    weight_decay_mask: optax.MaskOrFn | None,
    params: optax.Params,
) -> None:
    """Refuses weight decay on leaves whose norm an enclosing transform fixes.

    Args:
      owner: the name of the transform that decays.
      weight_decay: its rate. A traced rate is not looked into and is accepted.
      weight_decay_mask: which leaves decay, as optax's argument of that name; None is
        all.
      params: the parameters.

    Raises:
      ValueError: if a decaying leaf is claimed by a transform that allows no decay.

    Example:
      >>> import numpy as np
      >>> params = {"kernel": np.ones((3, 2)), "bias": np.ones(2)}
      >>> chosen = {"kernel": True, "bias": False}
      >>> with norm_control("lawn", chosen, allows_decay=False):
      ...     refuse_decay("adamp", 0.0, None, params)
      ...     refuse_decay("adamp", 0.1, {"kernel": False, "bias": True}, params)
      ...     refuse_decay("adamp", 0.1, None, params)
      Traceback (most recent call last):
        ...
      ValueError: lawn fixes the norm of 'kernel' and adamp decays it: set
      weight_decay=0, or leave the leaf out of weight_decay_mask.
    """
    claims = [claim for claim in _CLAIMS.get() if not claim.allows_decay]
    if not claims or isinstance(weight_decay, jax.core.Tracer):
        return
    if not callable(weight_decay) and is_zero(weight_decay):
        return
    paths = _paths(broadcast_mask(weight_decay_mask, params))
    for claim in claims:
        for path in sorted(claim.paths & paths):
            raise ValueError(
                f"{claim.owner} fixes the norm of {path!r} and {owner} decays it: set "
                "weight_decay=0, or leave the leaf out of weight_decay_mask."
            )
