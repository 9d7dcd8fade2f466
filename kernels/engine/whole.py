"""A program on whole arrays, by XLA: what kernels on blocks must agree with."""

from collections.abc import Mapping, Sequence
from typing import Any

from jax import Array, lax
from jax.sharding import NamedSharding

from gnomon.kernels.engine.program import (
    Blocks,
    Program,
    Sweep,
    Totals,
    apart,
    power,
    totals_of,
)
from gnomon.kernels.engine.rounding import store
from gnomon.parameters.trees import compute_dtype

__all__ = ("advance", "again", "holds", "power", "step", "sums")


def again(x: Array, after: Array) -> Array:
    """``x``, so that what is made of it is not kept in memory for another pass."""
    return lax.optimization_barrier((x, after))[0]


def step(
    program: Program,
    arrays: Blocks,
    units: Blocks,
    numbers: Any,
    *,
    reduce: Sequence[int],
    stack: Sequence[int] = (),
    key: Array | None = None,
    sharding: NamedSharding | None = None,
    sizes: None = None,
) -> dict[str, Array]:
    """Runs a program on one leaf.

    Args:
      program: the step.
      arrays: arrays of the leaf's shape, ``w`` among them.
      units: arrays with one number a unit, axes in ``reduce`` of size one.
      numbers: scalars of the step, a NamedTuple.
      reduce: the axes inside one unit, non-negative and ascending; () without units.
      stack: the axes over layers; read by kernels alone.
      key: a key that rounds ``w`` stochastically if it is bfloat16.
      sharding: how the arrays lie on a mesh; read by kernels alone.
      sizes: how much a kernel takes at a time; None.

    Returns:
      The arrays that the program writes, in the dtypes they came in.
    """
    dtype = compute_dtype(arrays["w"].dtype)
    moved = advance(program, arrays, units, numbers, reduce, dtype)
    return {
        name: store(x, arrays[name].dtype, key if name == "w" else None)
        for name, x in moved.items()
    }


def advance(
    program: Program,
    arrays: Blocks,
    units: Blocks,
    numbers: Any,
    axes: Sequence[int],
    dtype: Any,
) -> dict[str, Array]:
    """What a program writes, not yet rounded to the dtypes of its arrays."""
    totals = totals_of(
        *(program.sweeps, arrays, units, numbers, axes, dtype),
        shortcuts=False,
        shares=program.shares,
    )
    arrays = arrays if program.shares else apart(arrays, totals)
    wide = {name: x.astype(dtype) for name, x in (*arrays.items(), *units.items())}
    return program.update(wide, totals, numbers)


def sums(
    sweeps: Sequence[Sweep],
    arrays: Blocks,
    units: Blocks,
    numbers: Any,
    *,
    reduce: Sequence[int],
    stack: Sequence[int] = (),
    sharding: NamedSharding | None = None,
    sizes: None = None,
) -> Totals:
    """The sums of sweeps over the units of a leaf, see :func:`step`.

    Also those that are known: a condition may wait for the host.
    """
    dtype = compute_dtype(arrays["w"].dtype)
    return totals_of(*(sweeps, arrays, units, numbers, reduce, dtype), shortcuts=False)


def holds(
    program: Program,
    arrays: Mapping[str, Any],
    *,
    reduce: Sequence[int],
    stack: Sequence[int] = (),
    sharding: NamedSharding | None = None,
    sizes: None = None,
) -> bool:
    """Whether the update reads what is summed no more: not of whole arrays."""
    return False
