"""What a wrapper is given: an optimizer, or a direction where its argument says so."""

from typing import Any

import optax

from gnomon.optimizers.mechanisms.probe import slope


def complete(
    inner: optax.GradientTransformation, *, any_sign: bool = False
) -> optax.GradientTransformationExtraArgs:
    """The inner optimizer of a wrapper, learning rate included.

    A direction in its place would climb. It is found by a step on four numbers, unless
    a number is traced.

    Args:
      inner: what the wrapper was given as ``inner``.
      any_sign: whether it may as well be a direction, for a wrapper that hands on the
        updates as they are, so that it can be a link of a chain too.

    Returns:
      The optimizer.

    Raises:
      ValueError: if ``inner`` is known to climb.
      TypeError: if it is no transform.

    Example:
      >>> complete(optax.scale_by_adam())
      Traceback (most recent call last):
        ...
      ValueError: inner climbs: it has to be a complete optimizer, such as
      optax.adam(1e-3) in place of optax.scale_by_adam(); a direction becomes one by
      optax.chain(direction, gnomon.optimizers.descend(1e-3)).
      >>> complete(optax.adam)
      Traceback (most recent call last):
        ...
      TypeError: inner is the function adam, and has to be the optax transform that it
      makes: call it, as in optax.adam(1e-3).
    """
    _require_transform("inner", inner, "optax.adam(1e-3)")
    if not any_sign and slope(inner) > 0:
        raise ValueError(
            "inner climbs: it has to be a complete optimizer, such as optax.adam(1e-3) "
            "in place of optax.scale_by_adam(); a direction becomes one by "
            "optax.chain(direction, gnomon.optimizers.descend(1e-3))."
        )
    return optax.with_extra_args_support(inner)


def ascending(
    name: str, direction: optax.GradientTransformation
) -> optax.GradientTransformationExtraArgs:
    """An ascent-signed direction, for what needs it and the learning rate apart.

    Args:
      name: the argument, for messages.
      direction: what was given for it.

    Returns:
      The direction.

    Raises:
      ValueError: if it is known to descend.
      TypeError: if it is no transform.

    Example:
      >>> ascending("direction", optax.sgd(0.1))
      Traceback (most recent call last):
        ...
      ValueError: direction descends: it has a learning rate already, and is to be a
      direction, such as optax.scale_by_adam() in place of optax.adam(1e-3).
    """
    _require_transform(name, direction, "optax.scale_by_adam()")
    if slope(direction) < 0:
        raise ValueError(
            f"{name} descends: it has a learning rate already, and is to be a "
            "direction, such as optax.scale_by_adam() in place of optax.adam(1e-3)."
        )
    return optax.with_extra_args_support(direction)


def _require_transform(name: str, given: Any, example: str) -> None:
    if isinstance(given, optax.GradientTransformation):
        return
    if callable(given):
        made_by = getattr(given, "__name__", type(given).__name__)
        raise TypeError(
            f"{name} is the function {made_by}, and has to be the optax transform that "
            f"it makes: call it, as in {example}."
        )
    converts = callable(getattr(given, "gradient_transformation", None))
    raise TypeError(
        f"{name} is a {type(given).__name__}, and has to be an optax transform"
        + (": give its .gradient_transformation()." if converts else ".")
    )
