"""Refusals shared by the transforms: each names the argument and the fix."""

from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.parameters.paths import path_string

ScalarOrSchedule = jax.typing.ArrayLike | Callable[[jax.Array], jax.typing.ArrayLike]


def require_params(params: optax.Params | None, name: str) -> None:
    """Refuses an update without parameters.

    Args:
      params: what the caller passed to ``update``.
      name: the transform that needs them.

    Raises:
      ValueError: if ``params`` is None.
    """
    if params is None:
        raise ValueError(
            f"{name} needs the current parameters: call "
            "`update(grads, state, params)` instead of `update(grads, state)`."
        )


def require_scalar(name: str, value: Any) -> None:
    """Refuses a hyperparameter that is not one number.

    Args:
      name: the argument's name, for the message.
      value: a number, a 0-d array or tracer, or a schedule (not looked into).

    Raises:
      ValueError: if ``value`` is an array of rank one or more.
    """
    if callable(value):
        return
    shape = np.shape(value)
    if shape:
        raise ValueError(
            f"{name} must be a scalar or a schedule, got an array of shape {shape}. "
            "To try several values at once build the optimizer inside `jax.vmap`, "
            f"so that each lane sees a scalar {name}."
        )


def require_within(interval: str, /, *, whole: bool = False, **numbers: Any) -> None:
    """Refuses hyperparameters that are no numbers, or lie outside an interval.

    A tracer has no value yet, and what a schedule will say is not known: both pass.

    Args:
      interval: the numbers that make sense, ``"[0, 1)"`` for example, a square bracket
        for an end that belongs to it. NaN lies in none.
      whole: whether numbers have to be whole.
      **numbers: the values by the names of their arguments.

    Raises:
      ValueError: if a value is not one number, or is known and lies outside.

    Example:
      >>> require_within("[0, 1)", b1=0.9, b2=0.999)
      >>> require_within("[0, 1)", b1=0.9, b2=1.0)
      Traceback (most recent call last):
        ...
      ValueError: b2=1.0 is outside of its range [0, 1).
      >>> require_within("[1, inf)", every=1.5, whole=True)
      Traceback (most recent call last):
        ...
      ValueError: every=1.5 is not a whole number.
    """
    low, high = (float(end) for end in interval[1:-1].split(","))
    for name, value in numbers.items():
        require_scalar(name, value)
        if callable(value) or isinstance(value, jax.core.Tracer):
            continue
        if isinstance(value, jax.Array) and not value.is_fully_addressable:
            continue
        try:
            # What text says, or whether something is so, is no number.
            if isinstance(value, str | bytes | bool | np.bool_):
                raise TypeError
            number = float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{name}={value!r} is not a number.") from None
        above = number >= low if interval[0] == "[" else number > low
        below = number <= high if interval[-1] == "]" else number < high
        if not (above and below):
            raise ValueError(f"{name}={number} is outside of its range {interval}.")
        if whole and number != round(number):
            raise ValueError(f"{name}={number} is not a whole number.")


def require_leaves(name: str, tree: Any, *, complex_leaves: bool = False) -> None:
    """Refuses parameters that a transform would compute wrongly.

    Args:
      name: the transform, for the message.
      tree: its parameters, concrete, traced or abstract.
      complex_leaves: whether it is right for complex numbers too.

    Raises:
      ValueError: if a leaf is no array or number, or of a dtype that has no gradient,
        or complex.

    Example:
      >>> require_leaves("sgdp", {"steps": np.arange(3)})
      Traceback (most recent call last):
        ...
      ValueError: sgdp: the parameter 'steps' is of dtype int32, which has no gradient:
      leave it out with optax.masked or optax.partition.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        where = f"{name}: the parameter {path_string(path)!r}" if path else name
        try:
            dtype = jnp.result_type(leaf)
        except TypeError:
            raise ValueError(
                f"{where} is a {type(leaf).__name__} and no array: leave it out with "
                "optax.masked, or put None in its place."
            ) from None
        if jnp.issubdtype(dtype, jnp.complexfloating):
            if not complex_leaves:
                raise ValueError(
                    f"{where} is of dtype {dtype}, and it takes real ones alone: wrap "
                    "it in optax.contrib.split_real_and_imaginary."
                )
        elif not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"{where} is of dtype {dtype}, which has no gradient: leave it out "
                "with optax.masked or optax.partition."
            )


def require_choice(name: str, value: Any, choices: Any) -> None:
    """Refuses a flag that is not one of its values.

    Args:
      name: the argument's name, for the message.
      value: what the caller passed.
      choices: the ``Literal`` of the argument's type.

    Raises:
      ValueError: if ``value`` is none of them.
    """
    if value not in get_args(choices):
        raise ValueError(f"{name}={value!r} is not one of {get_args(choices)}.")


def is_zero(value: Any) -> bool:
    """Whether a number is known to be zero; what a tracer will be is not."""
    return not isinstance(value, jax.core.Tracer) and float(value) == 0


def at_step(name: str, value: ScalarOrSchedule, count: jax.Array) -> Any:
    """The value of a hyperparameter at one step.

    Args:
      name: the argument's name, for the message.
      value: a scalar or a schedule.
      count: updates made so far, an int32 scalar.

    Returns:
      ``value`` itself, or what the schedule says at ``count``.

    Raises:
      ValueError: if the schedule returned an array of rank one or more.
    """
    if not callable(value):
        return value
    result = value(count)
    require_scalar(f"the value of the schedule {name}", result)
    return result
