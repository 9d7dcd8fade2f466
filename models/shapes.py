"""The shapes of a model's parameters, without the parameters."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx

from gnomon.models.functional import Params, functional


def parameter_shapes(model: Callable[..., nnx.Module], **kwargs: Any) -> Params:
    """The parameters of a model as ``jax.ShapeDtypeStruct``: no memory, no FLOPs.

    Args:
      model: a module class, see `functional`.
      **kwargs: everything that it takes but `rngs`.

    Returns:
      A nested dictionary.

    Example:
      >>> from gnomon.models import MLP
      >>> parameter_shapes(MLP, inputs=4, widths=(), classes=3)["head"]["kernel"]
      ShapeDtypeStruct(shape=(4, 3), dtype=float32)
    """
    params: Params
    params, _ = jax.eval_shape(functional(model, **kwargs).init, jax.random.key(0))
    return params
