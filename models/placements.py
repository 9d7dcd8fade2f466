"""Where a residual branch is normalized.

A placement is a function `placement(x, branch, norm, ...)` of the stream `x` and a
branch, such as attention, that returns the new stream. It is a part of a model by its
signature alone, so that a new one is a function in a file of its own:

* Its positional parameters after `branch` are the normalizations that it needs. A block
  makes one for each, and calls it `<branch>_<parameter>`: `attention_norm`.
* Of its keyword-only parameters `index` is the block's place in the stack, from 1 and
  traced where layers are scanned, and `depth` the number of blocks; a block gives them
  to who asks. Others need defaults, and `gnomon.models.part` chooses them.

References:
  Xiong et al., On Layer Normalization in the Transformer Architecture, 2020
  (https://arxiv.org/abs/2002.04745): before and after.
  Ding et al., CogView, 2021 (https://arxiv.org/abs/2105.13290): both.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from flax import nnx
from jax import Array

Function = Callable[[Array], Array]
Placement = Callable[..., Array]
FACTS = frozenset({"index", "depth"})


def pre(x: Array, branch: Function, norm: Function) -> Array:
    """Before the branch: `x + branch(norm(x))`; the stream itself is never normed."""
    return x + branch(norm(x))


def post(x: Array, branch: Function, norm: Function) -> Array:
    """After the sum: `norm(x + branch(x))`."""
    return norm(x + branch(x))


def sandwich(x: Array, branch: Function, norm: Function, out_norm: Function) -> Array:
    """Before the branch and behind it: `x + out_norm(branch(norm(x)))`."""
    return x + out_norm(branch(norm(x)))


def bare(x: Array, branch: Function) -> Array:
    """No normalization: `x + branch(x)`."""
    return x + branch(x)


@dataclass(frozen=True)
class Connection:
    """A placement, and what its signature asks for.

    Attributes:
      placement: the function.
      norms: names of the normalizations that it takes.
      facts: names of what it is told of its block, of `index` and `depth`.
    """

    placement: Placement
    norms: tuple[str, ...]
    facts: tuple[str, ...]

    @classmethod
    def of(cls, placement: Placement) -> "Connection":
        """Reads a placement's signature.

        Args:
          placement: a function as this module describes.

        Returns:
          The `Connection`.

        Raises:
          ValueError: if the signature is not that of a placement.

        Example:
          >>> Connection.of(sandwich).norms
          ('norm', 'out_norm')
        """
        parameters = inspect.signature(placement).parameters.values()
        names = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        asked = [p for p in parameters if p.kind is p.KEYWORD_ONLY]
        unknown = [
            p.name for p in asked if p.default is p.empty and p.name not in FACTS
        ]
        if len(names) < 2 or unknown:
            raise ValueError(
                f"placement: {placement} has to be a function (x, branch, *norms) that "
                f"may ask for {sorted(FACTS)} by keyword; it takes {names}"
                + f" and needs {unknown}"
                * bool(unknown)
            )
        facts = tuple(p.name for p in asked if p.name in FACTS)
        return cls(placement, tuple(names[2:]), facts)

    def build(self, owner: nnx.Module, branch: str, norm: Callable[[], Any]) -> None:
        """Gives a block the normalizations of one of its branches.

        Args:
          owner: the block.
          branch: the branch's name in it.
          norm: makes one normalization.
        """
        for name in self.norms:
            setattr(owner, f"{branch}_{name}", norm())

    def __call__(
        self,
        owner: nnx.Module,
        branch: str,
        x: Array,
        *,
        train: bool,
        seen: Mapping[str, Any] = MappingProxyType({}),
        **facts: Any,
    ) -> Array:
        """The stream behind one branch of a block.

        Args:
          owner: the block.
          branch: the branch's name in it; called as `branch(x, train=train, **seen)`.
          x: the stream.
          train: for the branch and its normalizations.
          seen: what else the branch is given.
          **facts: what is known of the block.

        Returns:
          The new stream.
        """
        names = (f"{branch}_{name}" for name in self.norms)
        functions = [
            functools.partial(getattr(owner, branch), train=train, **seen),
            *(functools.partial(getattr(owner, name), train=train) for name in names),
        ]
        asked = {name: facts[name] for name in self.facts}
        return self.placement(x, *functions, **asked)
