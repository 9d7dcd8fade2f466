r"""Coordinate check: does anything in a network grow or vanish with its width?

A network is well parameterized for training at any width if the typical size of each
activation, and of what a few steps change in it, does not depend on the width. The
check trains the same network at several widths for a few steps and fits

.. math:: \text{size} \propto \text{width}^{\alpha}

An exponent near zero passes. Positive ones blow up at some width, negative ones of a
*change* mean a layer that stops to learn.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.parameters.trees import compute_dtype


class Subject(NamedTuple):
    """A network of one width, and how it is trained.

    Attributes:
      init: ``init(key) -> params``.
      loss: ``loss(params)``, a scalar, on a batch that is the same for all widths.
      activations: ``activations(params)``, arrays by name, on that batch or another;
        the names are the same for all widths.
      optimizer: takes the steps.
    """

    init: Callable[[jax.Array], Any]
    loss: Callable[[Any], jax.Array]
    activations: Callable[[Any], Mapping[str, jax.Array]]
    optimizer: optax.GradientTransformation


class CoordinateCheck(NamedTuple):
    """Sizes of coordinates by width; root mean squares over entries and seeds.

    Attributes:
      names: [k], the activations, sorted.
      widths: [w].
      size: [k, steps + 1, w], of the activations, the first before any step.
      change: [k, steps + 1, w], of their difference from before any step.
      size_exponent: [k, steps + 1], slope of log ``size`` in log width.
      change_exponent: [k, steps + 1], the same of ``change``. NaN before any step, and
        where an activation is zero at some width.
    """

    names: tuple[str, ...]
    widths: np.ndarray
    size: np.ndarray
    change: np.ndarray
    size_exponent: np.ndarray
    change_exponent: np.ndarray


def width_exponents(widths: Sequence[float], sizes: Any) -> np.ndarray:
    """Slopes of log size in log width, by least squares.

    Args:
      widths: [w].
      sizes: [..., w].

    Returns:
      [...]; NaN where a size is not positive or not finite.

    Example:
      >>> print(width_exponents([32, 64, 128], [[1.0, 2.0, 4.0], [3.0, 3.0, 0.0]]))
      [ 1. nan]
    """
    x = np.log(np.asarray(widths, np.float64))
    sizes = np.asarray(sizes, np.float64)
    known = (sizes > 0) & np.isfinite(sizes)
    y = np.log(np.where(known, sizes, 1.0))
    x = x - x.mean()
    return np.where(known.all(-1), y @ x / (x @ x), np.nan)


def coordinate_check(
    build: Callable[[int], Subject],
    widths: Sequence[int],
    *,
    steps: int = 4,
    seeds: int = 4,
) -> CoordinateCheck:
    """Trains a network for a few steps at several widths and measures its coordinates.

    Args:
      build: the :class:`Subject` of a width.
      widths: two or more different ones.
      steps: steps of the optimizer, default 4.
      seeds: networks at each width, default 4, with keys 0, 1, ...; all run as one
        compiled program a width.

    Returns:
      The record, of NumPy arrays.

    Raises:
      ValueError: if there are less than two widths, or ``build`` names other
        activations at other widths.

    Example:
      A readout of ones over ``width`` features that all change alike: with a rate that
      does not fall with the width, a step changes the output in proportion to it.

      >>> def build(width):
      ...     def output(w):
      ...         return jnp.sum(w, keepdims=True)
      ...     return Subject(lambda key: jnp.zeros(width), lambda w: output(w)[0],
      ...                    lambda w: {"output": output(w)}, optax.sgd(0.1))
      >>> check = coordinate_check(build, (8, 16, 32), steps=1, seeds=1)
      >>> print(check.change[0, 1].round(3), check.change_exponent[0].round(3))
      [0.8 1.6 3.2] [nan  1.]

    References:
      Yang et al., Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
      Hyperparameter Transfer, 2022 (https://arxiv.org/abs/2203.03466), section D.1

    Differences:
      The paper looks at sizes; a layer that no longer learns shows only in changes.
      Sizes are root mean squares, not mean absolute values.
    """
    if len(set(widths)) < 2:
        raise ValueError(
            f"widths={tuple(widths)}: an exponent needs two widths or more."
        )
    keys = jax.random.split(jax.random.key(0), seeds)
    columns: list[dict[str, np.ndarray]] = []
    for width in widths:
        subject = build(width)
        measured = jax.jit(jax.vmap(lambda key, s=subject: _run(s, key, steps)))(keys)
        columns.append({name: np.asarray(x) for name, x in measured.items()})
        if columns[-1].keys() != columns[0].keys():
            odd = sorted(columns[-1].keys() ^ columns[0].keys())
            raise ValueError(
                f"build: {odd} are activations at width {widths[0]} or {width} alone; "
                "give them the same names at all widths."
            )
    names = tuple(sorted(columns[0]))
    # [name, width, seed, step, (size, change)] of mean squares.
    squares = np.stack([[column[name] for column in columns] for name in names])
    roots = np.sqrt(np.moveaxis(squares.mean(2), 1, -1))
    size, change = roots[:, :, 0], roots[:, :, 1]
    return CoordinateCheck(
        names,
        np.asarray(widths),
        size,
        change,
        width_exponents(widths, size),
        width_exponents(widths, change),
    )


def _run(subject: Subject, key: jax.Array, steps: int) -> dict[str, jax.Array]:
    """Mean squares [steps + 1, 2] of each activation and of its change."""
    optimizer = optax.with_extra_args_support(subject.optimizer)
    first = subject.init(key)
    start = subject.activations(first)

    def mean_square(x: jax.Array) -> jax.Array:
        return jnp.mean(jnp.square(x.astype(compute_dtype(x.dtype))))

    def measure(seen: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
        return {
            name: jnp.stack([mean_square(x), mean_square(x - start[name])])
            for name, x in seen.items()
        }

    def step(carry: Any, _: None) -> Any:
        params, state = carry
        loss, grads = jax.value_and_grad(subject.loss)(params)
        updates, state = optimizer.update(
            grads, state, params, value=loss, grad=grads, value_fn=subject.loss
        )
        params = optax.apply_updates(params, updates)
        return (params, state), measure(subject.activations(params))

    _, later = jax.lax.scan(step, (first, optimizer.init(first)), length=steps)
    course: dict[str, jax.Array] = jax.tree.map(
        lambda now, rest: jnp.concatenate([now[None], rest]), measure(start), later
    )
    return course
