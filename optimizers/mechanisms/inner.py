"""What a wrapper accepts as its inner optimizer: one form for all of them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import optax

from gnomon.optimizers.mechanisms.descent import descend
from gnomon.optimizers.mechanisms.probe import slope
from gnomon.parameters.checks import ScalarOrSchedule, require_within

Inner: TypeAlias = (
    optax.GradientTransformation | Callable[..., optax.GradientTransformation]
)


def complete(
    inner: Inner,
    learning_rate: ScalarOrSchedule | None,
    inner_kwargs: Mapping[str, Any] | None = None,
    *,
    any_sign: bool = False,
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

    A direction in place of an optimizer would climb, and an optimizer in place of a
    direction too: both are found by a step on four numbers, unless a number is traced.

    Args:
      inner: an optimizer, a direction, or a function that makes an optimizer.
      learning_rate: a scalar, a schedule, or None.
      inner_kwargs: keyword arguments for the function.
      any_sign: whether ``inner`` may as well be a direction without a learning rate,
        for a wrapper that does not add its updates to anything.

    Returns:
      The optimizer.

    Raises:
      ValueError: if a function comes without a learning rate, ``inner_kwargs`` without
        a function, the learning rate is not one number or out of range, or the sign of
        ``inner`` is the wrong one.
      TypeError: if ``inner`` is neither a transform nor a function.

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
      >>> complete(optax.scale_by_adam(), None)
      Traceback (most recent call last):
        ...
      ValueError: inner climbs: without learning_rate it has to be a complete optimizer,
      such as optax.adam(1e-3) in place of optax.scale_by_adam(); or give learning_rate.
    """
    if learning_rate is not None:
        require_within("[0, inf)", learning_rate=learning_rate)
    _require_form(inner, learning_rate, inner_kwargs)
    if not isinstance(inner, optax.GradientTransformation):
        made = inner(learning_rate, **(inner_kwargs or {}))
        _require_form(made, None, None)
        if not isinstance(learning_rate, jax.core.Tracer) and slope(made) > 0:
            raise ValueError(
                "inner climbs: the function has to make a complete optimizer, as "
                "optax.adam does, with its learning rate included."
            )
        return optax.with_extra_args_support(made)
    if learning_rate is None:
        if not any_sign and slope(inner) > 0:
            raise ValueError(
                "inner climbs: without learning_rate it has to be a complete "
                "optimizer, such as optax.adam(1e-3) in place of "
                "optax.scale_by_adam(); or give learning_rate."
            )
        return optax.with_extra_args_support(inner)
    require_ascent("inner", inner)
    return optax.chain(inner, descend(learning_rate))


def direction(
    inner: Inner, inner_kwargs: Mapping[str, Any] | None = None
) -> optax.GradientTransformationExtraArgs:
    """Makes an ascent-signed direction of what a wrapper was given.

    For wrappers that need the direction and the learning rate apart. What they accept
    is as in :func:`complete` with a learning rate: a function is called with the rate
    one, and the updates of the optimizer that it makes are turned round.

    Args:
      inner: a direction, or a function that makes an optimizer.
      inner_kwargs: keyword arguments for the function.

    Returns:
      The direction.

    Raises:
      ValueError: if ``inner_kwargs`` come without a function, or ``inner`` descends.
      TypeError: if ``inner`` is neither a transform nor a function.

    Example:
      >>> import jax.numpy as jnp
      >>> g = jnp.array([2.0])
      >>> for inner in (optax.identity(), optax.sgd):
      ...     ascent = direction(inner)
      ...     print(ascent.update(g, ascent.init(g), g)[0])
      [2.]
      [2.]
      >>> direction(optax.sgd(0.1))
      Traceback (most recent call last):
        ...
      ValueError: inner descends: it has its learning rate already, and is to be a
      direction, such as optax.scale_by_adam() in place of optax.adam(1e-3), or a
      function, optax.adam.
    """
    _require_form(inner, 1.0, inner_kwargs)
    if not isinstance(inner, optax.GradientTransformation):
        turned = optax.chain(complete(inner, 1.0, inner_kwargs), optax.scale(-1.0))
        return optax.with_extra_args_support(turned)
    require_ascent("inner", inner)
    return optax.with_extra_args_support(inner)


def require_ascent(name: str, transform: optax.GradientTransformation) -> None:
    """Refuses a complete optimizer in place of a direction.

    Args:
      name: the argument, for the message.
      transform: what was given for it.

    Raises:
      ValueError: if it is known to descend.
    """
    if slope(transform) < 0:
        raise ValueError(
            f"{name} descends: it has its learning rate already, and is to be a "
            "direction, such as optax.scale_by_adam() in place of optax.adam(1e-3), "
            "or a function, optax.adam."
        )


def _require_form(inner: Any, learning_rate: Any, inner_kwargs: Any) -> None:
    if isinstance(inner, optax.GradientTransformation):
        if inner_kwargs:
            raise ValueError(
                f"inner_kwargs={sorted(inner_kwargs)} are for an inner that is a "
                "function; this inner is a transform that is built already."
            )
    elif not callable(inner):
        converts = callable(getattr(inner, "gradient_transformation", None))
        raise TypeError(
            f"inner is a {type(inner).__name__}, and has to be an optax transform or "
            "a function that makes one of a learning rate"
            + (": give its .gradient_transformation()." if converts else ".")
        )
    elif learning_rate is None:
        raise ValueError(
            "learning_rate is missing: inner is a function that makes an optimizer, "
            "and is called as inner(learning_rate, **inner_kwargs)."
        )
