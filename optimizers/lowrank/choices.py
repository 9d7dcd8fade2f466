"""The choices that make a method of :func:`subspace`: rules, transports, refreshes."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from gnomon.optimizers.mechanisms.moments import adam_step

Arrays: TypeAlias = tuple[jax.Array, ...]


class Inner(NamedTuple):
    """A rule of moments, each of the shape of what it averages."""

    moments: int
    step: Callable[..., Arrays]  # (n, t, g, *moments) -> (direction, *moments)


def _adam(n: Any, t: jax.Array, g: jax.Array, mu: jax.Array, nu: jax.Array) -> Arrays:
    return adam_step(g, mu, nu, n.b1, n.b2, n.eps, t)


def _average(n: Any, _: jax.Array, g: jax.Array, mu: jax.Array) -> Arrays:
    mu = n.b1 * mu + (1 - n.b1) * g
    return mu, mu


ADAM, AVERAGE = Inner(2, _adam), Inner(1, _average)

# What becomes of the moments in a new basis: (turn, *moments) -> moments, where turn is
# the old basis in the coordinates of the new one, [layers, rank, rank].
Transport: TypeAlias = Callable[..., Arrays]


def product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The matrix product, a layer at a time, at the precision of the arrays."""
    return jnp.matmul(a, b, precision="highest")


def keep(_: jax.Array, *moments: jax.Array) -> Arrays:
    """The numbers stay, whatever they now stand for: GaLore's way."""
    return moments


def reset(_: jax.Array, *moments: jax.Array) -> Arrays:
    """All moments start anew."""
    return tuple(jnp.zeros_like(m) for m in moments)


def rotate(turn: jax.Array, mu: jax.Array, nu: jax.Array) -> Arrays:
    """Averages are turned; those of squares by the squares, as of what is unrelated."""
    return product(turn, mu), product(jnp.square(turn), nu)


def rotate_first(turn: jax.Array, mu: jax.Array, nu: jax.Array) -> Arrays:
    """The first moment is turned, and the second stays: Conda's way."""
    return product(turn, mu), nu


class Refresh(NamedTuple):
    """When a basis is found anew, a layer at a time; the first update always does."""

    initial: Callable[[int], Arrays]  # slots, of the number of layers
    due: Callable[..., jax.Array]  # (n, t, *slots) -> a bool, or one a layer
    # (n, t, due, cosine, *slots) -> slots; the cosine of old and new first vectors
    after: Callable[..., Arrays]


PERIODIC = Refresh(
    lambda layers: (),
    lambda n, t: (t == 1) | (jnp.mod(t - 1, n.every) == 0),
    lambda n, t, due, cosine: (),
)


def lazy(window: int = 5) -> Refresh:
    """The interval doubles where the last first vectors had a cosine above a number.

    Slots: updates since the last refresh, the factor of the interval, the last cosines.
    """

    def initial(layers: int) -> Arrays:
        return jnp.zeros(layers), jnp.ones(layers), jnp.full((layers, window), -1.0)

    def due(
        n: Any, t: jax.Array, age: jax.Array, stretch: jax.Array, _: jax.Array
    ) -> jax.Array:
        found: jax.Array = (t == 1) | (age >= n.every * stretch)
        return found

    def after(
        n: Any,
        t: jax.Array,
        due: jax.Array,
        cosine: jax.Array,
        age: jax.Array,
        stretch: jax.Array,
        last: jax.Array,
    ) -> Arrays:
        pushed = jnp.concatenate([last[:, 1:], jnp.abs(cosine)[:, None]], axis=1)
        measured = due & (t > 1)
        last = jnp.where(measured[:, None], pushed, last)
        # What is not filled yet is negative.
        steady = jnp.all(last >= 0, axis=1) & (jnp.mean(last, axis=1) >= n.lazy_above)
        stretch = jnp.where(measured & steady, 2 * stretch, stretch)
        return jnp.where(due, 1, age + 1), stretch, last

    return Refresh(initial, due, after)


class Residual(NamedTuple):
    """What is made of the part of the gradient outside of the subspace."""

    initial: Callable[[int], Arrays]  # slots, of the number of layers
    # (n, t, gradient, inside, coordinates, direction, *slots) -> (S, *slots); all but
    # the coordinates and their direction are [layers, side, other]
    step: Callable[..., Arrays]


NO_RESIDUAL = Residual(
    lambda layers: (), lambda n, t, g, inside, *_: (jnp.zeros_like(g),)
)
SGD = Residual(lambda layers: (), lambda n, t, g, inside, *_: (g - inside,))
