"""What a wrapper of a complete optimizer accepts as the optimizer."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import optax

from gnomon.optimizers._learning_rate import descend
from gnomon.parameters.checks import ScalarOrSchedule

Inner: TypeAlias = (
    optax.GradientTransformation | Callable[..., optax.GradientTransformation]
)


def complete(
    inner: Inner,
    learning_rate: ScalarOrSchedule | None,
    inner_kwargs: Mapping[str, Any] | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Makes a complete optimizer, learning rate included, of what a wrapper was given.

    ====================  ==================  =======================================
    ``inner``             ``learning_rate``   the optimizer
    ====================  ==================  =======================================
    a transform           None                ``inner``: it is complete
    a transform           given               ``inner`` is a direction, ascent-signed;
                                              a step of the learning rate follows
    a function            given               ``inner(learning_rate, **inner_kwargs)``
    ====================  ==================  =======================================

    Args:
      inner: an optimizer, a direction, or a function that makes an optimizer.
      learning_rate: a scalar, a schedule, or None.
      inner_kwargs: keyword arguments for the function.

    Returns:
      The optimizer.

    Raises:
      ValueError: if a function comes without a learning rate, or ``inner_kwargs``
        without a function.

    Example:
      >>> import jax.numpy as jnp
      >>> g = jnp.array([2.0])
      >>> for inner, rate in ((optax.sgd(0.1), None), (optax.identity(), 0.1),
      ...                     (optax.sgd, 0.1)):
      ...     optimizer = complete(inner, rate)
      ...     print(optimizer.update(g, optimizer.init(g), g)[0])
      [-0.2]
      [-0.2]
      [-0.2]
    """
    if isinstance(inner, optax.GradientTransformation):
        if inner_kwargs:
            raise ValueError(
                f"inner_kwargs={sorted(inner_kwargs)} are for an inner that is a "
                "function; this inner is a transform that is built already."
            )
        if learning_rate is None:
            return optax.with_extra_args_support(inner)
        return optax.chain(inner, descend(learning_rate))
    if learning_rate is None:
        raise ValueError(
            "learning_rate is missing: inner is a function that makes an optimizer, "
            "and is called as inner(learning_rate, **inner_kwargs)."
        )
    return optax.with_extra_args_support(inner(learning_rate, **(inner_kwargs or {})))
