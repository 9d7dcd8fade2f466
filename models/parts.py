"""Parts of models: a class or a function with some of its arguments chosen."""

import functools
from collections.abc import Callable
from typing import Any

from flax import nnx

# Called as `norm(features, *, param_dtype, rngs)`, see `gnomon.models.normalization`.
Norm = Callable[..., nnx.Module]


def part(of: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """A part of a model with some of its arguments chosen.

    What `functools.partial` is, by arguments that a config can write::

        norm=dict(
            name="gnomon.models.part",
            of=dict(ref="gnomon.models.normalization.RMSNorm"),
            epsilon=1e-5,
        )

    Args:
      of: a class or a function.
      **options: arguments of it by name.

    Returns:
      A function that takes the rest of the arguments.

    Example:
      >>> from gnomon.models.normalization import RMSNorm
      >>> norm = part(RMSNorm, epsilon=1e-5)
      >>> norm(8, rngs=nnx.Rngs(0)).epsilon
      1e-05
    """
    return functools.partial(of, **options)
