"""Steps that need sums over a unit, or a layer, before any of its numbers may move."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

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
    # (what has one number a unit, totals of the sweeps before, scalars of the step) to
    # the units whose sums the update will use; None for all. Where there are none the
    # sums may be anything, and a leaf that would have to be read for them is not.
    needed: Callable[[Blocks, Totals, Any], Array] | None = None


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
    program: Program,
    arrays: Blocks,
    units: Blocks,
    numbers: Any,
    axes: Sequence[int],
    dtype: Any,
) -> Totals:
    """The sums of all sweeps over whole arrays, by XLA.

    Args:
      program: the step.
      arrays: whole arrays.
      units: arrays with one number a unit.
      numbers: scalars of the step.
      axes: axes of the leaf to sum over.
      dtype: the dtype to compute in.

    Returns:
      One array a term, with summed axes of size one.
    """
    totals: Totals = ()
    units = {name: x.astype(dtype) for name, x in units.items()}
    for sweep in program.sweeps:

        def sums(sweep=sweep, totals=totals):
            # Widened here, or a condition would have wide copies written for it.
            wide = {name: arrays[name].astype(dtype) for name in sweep.reads}
            terms = sweep.terms(wide | units, totals, numbers)
            return tuple(
                jnp.sum(term, axis=tuple(axes), keepdims=True) for term in terms
            )

        if sweep.needed is None:
            totals += sums()
        else:
            zeros = tuple(map(jnp.zeros_like, jax.eval_shape(sums)))
            wanted = jnp.any(sweep.needed(units, totals, numbers))
            totals += lax.cond(wanted, sums, lambda zeros=zeros: zeros)
    return totals


def positive_axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, ascending."""
    return tuple(sorted(axis % ndim for axis in axes))
