"""Steps that an optimizer does not take: its state stays as it was."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers import FusedTransformation

SKIP = "skip"
"""The extra arg that says so, a bool."""


def kept_where(skip: jax.Array, old: Any, new: Any) -> Any:
    """A tree as it was where a step is skipped, to the bit, and else as it became.

    >>> import numpy as np
    >>> kept_where(jnp.array(True), {"w": np.float32(-0.0)}, {"w": np.float32(1.0)})
    {'w': Array(-0., dtype=float32)}
    """
    return jax.tree.map(lambda before, after: jnp.where(skip, before, after), old, new)


def skipping(
    optimizer: optax.GradientTransformationExtraArgs,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer whose state stays as it was where the extra arg ``skip`` is true.

    What it moves is moved all the same; whoever skips keeps the parameters.
    """

    def stepping(function: Callable) -> Callable:
        def step(given: Any, state: Any, params: Any = None, **extra: Any) -> tuple:
            skip = extra.pop(SKIP)
            moved, after = function(given, state, params, **extra)
            return moved, kept_where(skip, state, after)

        return step

    plain = optax.GradientTransformationExtraArgs(
        optimizer.init, stepping(optax.with_extra_args_support(optimizer).update)
    )
    if isinstance(optimizer, FusedTransformation):
        return FusedTransformation(plain, stepping(optimizer.apply))
    return plain
