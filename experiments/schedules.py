"""Learning-rate schedules whose every number may be a tracer.

A schedule here is ``schedule(peak, steps, **fractions)`` and returns a function of
the step count, as optax's schedules do. They are written out because optax's own
compare the peak and the end value in Python, which a traced learning rate, and so
a vmapped grid of them, does not allow. Warm-up and decay are given as fractions of
the run, so a config keeps its meaning when ``steps`` changes.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]


def constant(peak, steps) -> Schedule:
    """The same learning rate at every step."""
    del steps
    return lambda count: jnp.asarray(peak, jnp.float32)


def _fractions(**values) -> None:
    """Refuses a concrete number that is no fraction of a run, or of a rate."""
    for name, value in values.items():
        if isinstance(value, int | float) and not 0.0 <= value <= 1.0:
            raise ValueError(f"{name}={value!r}: needs a fraction, from 0 to 1")


def _warmup(count, steps, warmup) -> tuple[jax.Array, jax.Array]:
    """The warm-up factor and the progress of the decay, both in [0, 1].

    Step 0 already moves: the warm-up's i-th step has rate (i + 1) / (w + 1).
    """
    count, steps, warmup = (jnp.asarray(x, jnp.float32) for x in (count, steps, warmup))
    length = warmup * steps
    rising = jnp.minimum(1.0, (count + 1.0) / (length + 1.0))
    decay = jnp.clip((count - length) / jnp.maximum(steps - length, 1.0), 0.0, 1.0)
    return rising, decay


def warmup_cosine(peak, steps, warmup=0.1, final=0.0) -> Schedule:
    r"""Linear warm-up, then half a cosine to ``final * peak``.

    .. math:: \eta_t = \eta \, (f + (1 - f) \tfrac12 (1 + \cos \pi p_t))

    Args:
      peak: the highest learning rate.
      steps: the length of the run, in steps.
      warmup: fraction of the run spent warming up.
      final: last learning rate over the peak, a fraction too.

    Raises:
      ValueError: a number that is no fraction.

    >>> schedule = warmup_cosine(1.0, steps=100, warmup=0.1)
    >>> [round(float(schedule(t)), 3) for t in (0, 10, 55, 100)]
    [0.091, 1.0, 0.5, 0.0]
    """
    _fractions(warmup=warmup, final=final)

    def schedule(count):
        rising, decay = _warmup(count, steps, warmup)
        fall = final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * decay))
        return peak * rising * fall

    return schedule


def warmup_linear(peak, steps, warmup=0.1, final=0.0) -> Schedule:
    """Linear warm-up, then a straight line to ``final * peak``.

    >>> schedule = warmup_linear(1.0, steps=100, warmup=0.1)
    >>> [round(float(schedule(t)), 3) for t in (0, 10, 55, 100)]
    [0.091, 1.0, 0.5, 0.0]
    """
    _fractions(warmup=warmup, final=final)

    def schedule(count):
        rising, decay = _warmup(count, steps, warmup)
        return peak * rising * (1.0 - (1.0 - final) * decay)

    return schedule
