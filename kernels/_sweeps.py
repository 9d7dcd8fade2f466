"""Steps that need sums over a unit, or a layer, before any of its numbers may move."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
from jax import Array

# Arrays of a leaf by name, whole or one block of each, in the dtype to compute in.
# Those with one number a unit have size one along its axes.
Blocks: TypeAlias = Mapping[str, Array]
# One sum a unit, of all terms so far.
Totals: TypeAlias = tuple[Array, ...]


class Sweep(NamedTuple):
    """One reading of a leaf, for sums."""

    reads: tuple[str, ...]  # the arrays that the terms are made of
    sums: int  # how many terms there are
    # (blocks, totals of the sweeps before, scalars of the step) to what is summed.
    terms: Callable[[Blocks, Totals, Any], tuple[Array, ...]]


class Program(NamedTuple):
    """One step on a leaf: sweeps, each with the sums before it at hand, and an update.

    The functions hold for a whole leaf as for a block of one.
    """

    name: str
    sweeps: tuple[Sweep, ...]
    # (blocks, all totals, scalars of the step) to the arrays that it writes, by name.
    update: Callable[[Blocks, Totals, Any], dict[str, Array]]
    writes: tuple[str, ...]


def totals_of(
    program: Program, arrays: Blocks, numbers: Any, axes: tuple[int, ...]
) -> Totals:
    """The sums of all sweeps over whole arrays, by XLA.

    Args:
      program: the step.
      arrays: whole arrays, in the dtype to compute in.
      numbers: scalars of the step.
      axes: axes of the leaf to sum over.

    Returns:
      One array a term, with summed axes of size one.
    """
    totals: Totals = ()
    for sweep in program.sweeps:
        terms = sweep.terms(arrays, totals, numbers)
        totals += tuple(jnp.sum(term, axis=axes, keepdims=True) for term in terms)
    return totals


def positive_axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, ascending."""
    return tuple(sorted(axis % ndim for axis in axes))
