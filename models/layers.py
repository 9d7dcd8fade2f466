"""What the models share: initializers, activations and argument checks."""

import math
from collections.abc import Callable, Collection, Sequence
from difflib import get_close_matches
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def squared_relu(x: Array) -> Array:
    """`max(x, 0)^2`."""
    return jnp.square(jax.nn.relu(x))


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "relu2": squared_relu,
    "gelu": jax.nn.gelu,
}


Initializer = Callable[[Array, Sequence[int], Any], Array]


def normal(stddev: float) -> Initializer:
    """Normal initialization."""

    def init(key: Array, shape: Sequence[int], dtype: Any) -> Array:
        # Drawn flat: the same numbers, but XLA CPU compiles the draw of a [3, 3, 16,
        # 16] kernel 4 times faster than with its four axes.
        draws = jax.random.normal(key, (math.prod(shape),), dtype)
        return (draws * jnp.asarray(stddev, dtype)).reshape(shape)

    return init


def fan_in(variance: float = 1.0) -> Initializer:
    """Normal initialization with variance `variance / fan_in`, outputs last."""

    def init(key: Array, shape: Sequence[int], dtype: Any) -> Array:
        stddev = math.sqrt(variance / math.prod(shape[:-1]))
        return normal(stddev)(key, shape, dtype)

    return init


def check_positive(**sizes: int) -> None:
    """Refuses a size below one, naming the argument."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name}: {size} must be at least 1")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Refuses a value that is not a choice, naming the nearest one."""
    if value not in choices:
        near = get_close_matches(str(value), choices, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise ValueError(
            f"{name}: {value!r} is unknown; {hint}known: {', '.join(sorted(choices))}"
        )
