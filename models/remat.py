"""What a block keeps of its forward pass, and what its backward pass computes again.

    config.model.remat = "full"

- ``"none"``: everything that the gradient needs is kept, the default.
- ``"full"``: the input of each block alone; a block runs again before its gradient, a
  third more FLOPs.
- ``"dots"``: the results of matrix products, `jax.checkpoint_policies.dots_saveable`;
  norms and activations are computed again. Of plain attention the scores are kept too.
- ``"projections"``: of products with weights alone,
  `jax.checkpoint_policies.dots_with_no_batch_dims_saveable`; attention runs again.
- any other name of `jax.checkpoint_policies` that takes no arguments.

Values and gradients stay what they are: the same operations run twice.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from gnomon.models.layers import check_choice

NONE = "none"
POLICIES: dict[str, str | None] = {
    NONE: None,
    "full": "nothing_saveable",
    "dots": "dots_saveable",
    "projections": "dots_with_no_batch_dims_saveable",
    **{
        name: name
        for name in (
            "everything_saveable",
            "nothing_saveable",
            "dots_saveable",
            "dots_with_no_batch_dims_saveable",
        )
    },
}


def check_remat(remat: str) -> None:
    """Refuses a name that is none of `POLICIES`."""
    check_choice("remat", remat, POLICIES)


def rematerialized(
    function: Callable[..., Any], remat: str, *, scanned: bool = False
) -> Callable[..., Any]:
    """A function that keeps for its gradient what a policy says.

    Args:
      function: of arrays alone; modules are split before.
      remat: a key of `POLICIES`.
      scanned: whether it is the body of a loop. Elsewhere XLA must be kept from seeing
        that it is asked for the same numbers twice.
    """
    policy = POLICIES[remat]
    if policy is None:
        return function
    saved = getattr(jax.checkpoint_policies, policy)
    return jax.checkpoint(function, policy=saved, prevent_cse=not scanned)


def call(block: nnx.Module, remat: str, *arguments: Any, **options: Any) -> Any:
    """``block(*arguments, **options)``, keeping what a policy says.

    Running statistics of the block are updated as by the call itself.

    Args:
      block: the block; its parameters and statistics are in it.
      remat: a key of `POLICIES`.
      *arguments: arrays.
      **options: of Python's types.
    """
    if remat == NONE:
        return block(*arguments, **options)  # type: ignore[operator]
    graphdef, state = nnx.split(block)

    def run(state: Any, *arguments: Any) -> tuple[Any, Any]:
        module: Any = nnx.merge(graphdef, state)
        result = module(*arguments, **options)
        return result, nnx.state(module, nnx.BatchStat)

    result, stats = rematerialized(run, remat)(state, *arguments)
    nnx.update(block, stats)
    return result
