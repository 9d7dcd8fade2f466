"""A step as sums over a unit, or a layer, and an update that waits for them.

A :class:`Program` is the one definition of its method. XLA runs it on whole arrays, in
``whole``; kernels run it on blocks, in ``tpu.runner`` and ``gpu.runner``.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

# Arrays of a leaf by name, whole or one block of each, in the dtype to compute in.
# Those with one number a unit have size one along its axes.
Blocks: TypeAlias = Mapping[str, Array]
# One sum a unit, of all terms so far.
Totals: TypeAlias = tuple[Array, ...]
# ``x ** exponent`` of what is not negative, made of what a chip has.
Power: TypeAlias = Callable[[Array, Array], Array]
# ``again(x, after)`` is ``x``, for what is to be computed from it anew after ``after``.
Again: TypeAlias = Callable[[Array, Array], Array]


class Sweep(NamedTuple):
    """One reading of a leaf, for sums."""

    reads: tuple[str, ...]  # the arrays that the terms are made of
    sums: int  # how many terms there are
    # (blocks, totals of the sweeps before, scalars of the step) to what is summed.
    terms: Callable[[Blocks, Totals, Any], tuple[Array, ...]]
    # (what has one number a unit, totals of the sweeps before, scalars of the step) to
    # the sums by other means, and the units for which those hold; None where there are
    # no other means. Where they hold for all units, kernels do not read the leaf.
    known: Callable[[Blocks, Totals, Any], tuple[tuple[Any, ...], Array]] | None = None


class Program(NamedTuple):
    """One step on a leaf: sweeps, each with the sums before it at hand, and an update.

    The functions hold for a whole leaf as for a block of one.
    """

    name: str
    sweeps: tuple[Sweep, ...]
    # (blocks, all totals, scalars of the step) to the arrays that it writes, by name.
    update: Callable[[Blocks, Totals, Any], dict[str, Array]]
    writes: tuple[str, ...]
    # Whether it says itself, by :data:`Again`, what XLA is to compute anew in a pass.
    shares: bool = False


def astype(x: Array, dtype: Any) -> Array:
    """``x`` in another dtype, as what reads an array whose numbers are its own."""
    return x.astype(dtype)


def totals_of(
    sweeps: Sequence[Sweep],
    arrays: Mapping[str, Any],
    units: Blocks,
    numbers: Any,
    axes: Sequence[int],
    dtype: Any,
    *,
    shortcuts: bool = True,
    shares: bool = False,
    read: Callable[[Any, Any], Array] = astype,
) -> Totals:
    """The sums of sweeps over whole arrays, by XLA.

    Args:
      sweeps: what to add up.
      arrays: whole arrays.
      units: arrays with one number a unit.
      numbers: scalars of the step.
      axes: axes of the leaf to sum over.
      dtype: the dtype to compute in.
      shortcuts: whether sums that are ``known`` are taken from there, by a condition on
        the device, or always added up.
      shares: as the program of the sweeps says.
      read: ``read(array, dtype)`` makes numbers of an array.

    Returns:
      One array a term, with summed axes of size one.
    """
    totals: Totals = ()
    # What only shortcuts are made of may go unused.
    together = all(sweep.known is None for sweep in sweeps)
    units = {name: x.astype(dtype) for name, x in units.items()}
    for sweep in sweeps:

        def sums(sweep=sweep, totals=totals):
            # Widened here, or a condition would have wide copies written for it.
            raw: Mapping[str, Any] = {name: arrays[name] for name in sweep.reads}
            raw = raw if shares else apart(raw, totals)
            wide = {name: read(x, dtype) for name, x in raw.items()}
            return add_up(sweep.terms(wide | units, totals, numbers), axes, together)

        if sweep.known is None or not shortcuts:
            totals += sums()
            continue
        values, holds = sweep.known(units, totals, numbers)
        zeros = tuple(map(jnp.zeros_like, jax.eval_shape(sums)))
        added = lax.cond(jnp.all(holds), lambda zeros=zeros: zeros, sums)
        totals += known_or(values, holds, added)
    return totals


def known_or(values: Sequence[Any], holds: Array, added: Sequence[Array]) -> Totals:
    """Known sums where they hold, and those that were added up elsewhere."""
    pairs = zip(values, added, strict=True)
    return tuple(jnp.where(holds, known, x) for known, x in pairs)


def apart(arrays: Mapping[str, Any], totals: Totals) -> Mapping[str, Any]:
    """The same arrays, read anew by what needs the totals.

    XLA on CPU writes what two passes share to a new array, and the page faults of that
    cost more than all the arithmetic. It takes barriers on different values for
    different.
    """
    return lax.optimization_barrier((arrays, totals))[0] if totals else arrays


def add_up(terms: Sequence[Array], axes: Sequence[int], together: bool) -> Totals:
    """The sums of terms over axes, which keep size one; rows of all of them at once."""
    last = terms[0].ndim - 1
    if together and len(terms) > 1 and len(axes) > 1 and last in axes:
        # One pass for all, which sum() over each would not be. Rows first, because a
        # single running sum over a large leaf in float32 is wrong by a percent.
        rows = lax.reduce(
            list(terms),
            [np.zeros([], term.dtype) for term in terms],
            lambda x, y: [a + b for a, b in zip(x, y, strict=True)],
            (last,),
        )
        terms = [jnp.expand_dims(x, last) for x in lax.optimization_barrier(rows)]
    return tuple(jnp.sum(term, axis=tuple(axes), keepdims=True) for term in terms)


def power(x: Array, exponent: Array) -> Array:
    """``x ** exponent``, and ``x`` itself, whatever the chip's logarithm, at 1."""
    return jnp.where(exponent == 1, x, x**exponent)


def positive_axes(axes: Any, ndim: int) -> tuple[int, ...]:
    """Axes counted from the front, ascending."""
    return tuple(sorted(axis % ndim for axis in axes))
