r"""What an optimizer says of where weight decay will hold the weights.

The angle at equilibrium follows from two numbers of a step, see
:mod:`gnomon.dynamics.equilibrium`: how a direction averages gradients, and what share
of the weights decay removes. Each part of an optimizer that knows one of them says it
while a step is observed, and an optimizer all of whose parts have spoken is known. No
list of methods is kept, and none is needed: one built on
:func:`gnomon.optimizers.leafwise` and :func:`gnomon.optimizers.descend` is known by
``says``.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax

from gnomon.optimizers.mechanisms.diagnostics import Observations

__all__ = ["Balance", "balance"]


class Balance(NamedTuple):
    """The two numbers of a step that set the angle at equilibrium.

    Attributes:
      momentum: the decay of the average of gradients, each over a scale of its own that
        hardly changes from step to step, that is the direction.
      shrinkage: the share of the weights that decay removes in this step.
    """

    momentum: jax.Array
    shrinkage: jax.Array


def balance(seen: Observations, state: Any) -> Balance:
    r"""What the parts of an optimizer said in a step that was observed.

    Args:
      seen: what :func:`gnomon.optimizers.observed` gave, its context left.
      state: the state of the whole optimizer after the step. A part of it that has not
        spoken may change the step in any way.

    Returns:
      The numbers of the step.

    Raises:
      LookupError: if a part said nothing, or parts do not follow one another as a
        direction and a step against it do; the message names the first one.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gnomon.optimizers import adabelief, lawn, observed
      >>> def of(optimizer, w=jnp.array([3.0, 4.0])):
      ...     with observed() as seen:
      ...         _, state = optimizer.update(w, optimizer.init(w), w)
      ...     return balance(seen, state)
      >>> found = of(adabelief(0.5, weight_decay=0.1))
      >>> print(found.momentum, found.shrinkage)
      0.9 0.05
      >>> of(lawn(adabelief(0.5), free_steps=10))
      Traceback (most recent call last):
        ...
      LookupError: ConstrainState says nothing of where it holds the weights
    """
    spoken = [part for part, _ in seen.said]
    parts = list(_parts(state))
    silent = next((part for part in parts if part not in spoken), None)
    if silent is not None:
        raise LookupError(
            f"{silent.__name__} says nothing of where it holds the weights"
        )
    numbers = [item for _, terms in seen.said for item in terms.items()]
    names = tuple(name for name, _ in numbers)
    if parts != spoken or names != Balance._fields:
        said, wanted = ", ".join(names) or "nothing", " and ".join(Balance._fields)
        raise LookupError(
            f"the optimizer says {said}, and where it holds the weights follows from"
            f" {wanted}, once each"
        )
    return Balance(**dict(numbers))


def _parts(node: Any) -> Iterator[type]:
    """The classes that a state is made of, in order; nothing inside of them."""
    if type(node) in (tuple, list, dict) and node:
        for inner in node.values() if isinstance(node, dict) else node:
            yield from _parts(inner)
    else:
        yield type(node)
