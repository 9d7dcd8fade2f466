"""Refusals shared by the transforms: each names the argument and the fix."""

from collections.abc import Callable
from typing import Any, get_args

import jax
import numpy as np
import optax

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
