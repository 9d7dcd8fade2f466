"""One call of a TPU kernel on a folded leaf: what it is given and what it writes."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from gnomon.kernels.engine.layout import Layout, flat_index
from gnomon.kernels.engine.program import Totals
from gnomon.kernels.engine.rounding import random_bits, stochastic_round
from gnomon.kernels.engine.sizes import Tpu
from gnomon.kernels.engine.tpu.blocks import Block, turns_units
from gnomon.parameters.trees import compute_dtype

# From a grid index to the index of a block: layer, row and column.
Place = Callable[..., tuple[Any, Any, Any]]


class Call(NamedTuple):
    """What a kernel is given."""

    name: str
    arrays: dict[str, Array]  # of shape (layers, rows, columns)
    units: dict[str, Array]  # one number a unit each
    totals: Totals  # sums that are known, one number a unit each
    numbers: Any  # scalars of the step, a NamedTuple
    seeds: Array | None  # for stochastic rounding of w
    where: Layout
    shape: tuple[int, ...]  # of the leaf
    sizes: Tpu

    @property
    def dtype(self) -> Any:
        """The dtype to compute in."""
        return compute_dtype(next(iter(self.arrays.values())).dtype)


class Inside(NamedTuple):
    """What the body of a kernel sees of a call."""

    arrays: dict[str, Any]  # references
    units: dict[str, Array]
    totals: Totals
    numbers: Any
    seeds: Sequence[Array]  # two words, or none
    outputs: dict[str, Any]  # references
    scratch: Sequence[Any]


def join_units(
    call: Call, block: Block, place: Place
) -> tuple[Array, Any, Callable[[Array], list[Array]]]:
    """All that a call has one number a unit of.

    Args:
      call: the call.
      block: shape of a block.
      place: which block a step of the grid works on.

    Returns:
      One array, its `BlockSpec`, and what takes a block of it apart in a kernel.
    """
    axis, turned = call.where.axis, turns_units(call.where, block)
    small = [x.astype(call.dtype) for x in (*call.units.values(), *call.totals)]
    if turned:
        small = [x.swapaxes(1, 2) for x in small]
    side_by_side = axis == 1 or turned
    count, length = len(small), {1: block[1], 2: block[0], None: 1}[axis]

    def index(*grid):
        layer, row, column = place(*grid)
        at = {1: column, 2: row, None: 0}[axis]
        return (layer, 0, at) if side_by_side else (layer, at, 0)

    def split(x: Array) -> list[Array]:
        return jnp.split(x.T if turned else x, count, 0 if axis == 1 else 1)

    sizes = (count, length) if side_by_side else (length, count)
    joined = jnp.concatenate(small, 1 if side_by_side else 2)
    return joined, pl.BlockSpec((None, *sizes), index), split


def launch(
    call: Call,
    body: Callable[[Inside], None],
    block: Block,
    *,
    grid: tuple[int, ...],
    place: Place,
    outputs: Mapping[str, tuple[jax.ShapeDtypeStruct, Any]],
    semantics: Sequence[Any],
    vmem: int,
    reads: Mapping[str, int] | None = None,
    specs: Mapping[str, Any] | None = None,
    scratch: Sequence[Any] = (),
) -> dict[str, Array]:
    """The `pallas_call` of a body.

    Args:
      call: what the kernel is given.
      body: the kernel.
      block: rows and columns of a block.
      grid: the grid.
      place: from an index of the grid to that of a block.
      outputs: shape and `BlockSpec` of what it writes, by name; written over the array
        of that name where there is one.
      semantics: `dimension_semantics` of the grid.
      vmem: bytes of VMEM that it needs.
      reads: how often it reads an array, if not once.
      specs: a `BlockSpec` for arrays that are not read block by block as `place` says.
      scratch: `scratch_shapes`.

    Returns:
      The outputs by name.
    """
    scalar = pl.BlockSpec(memory_space=pltpu.SMEM)
    numbers = [jnp.asarray(x).astype(call.dtype) for x in call.numbers]
    # Of rank two, or a TPU refuses them with the axis that jax.vmap adds.
    operands = [(jnp.stack(numbers)[None], scalar)]
    if call.seeds is not None:
        operands.append((call.seeds[None], scalar))
    split = None
    if call.units or call.totals:
        joined, spec, split = join_units(call, block, place)
        operands.append((joined, spec))
    over = {name: len(operands) + i for i, name in enumerate(call.arrays)}
    whole = pl.BlockSpec((None, *block), place)
    operands += [(x, (specs or {}).get(n, whole)) for n, x in call.arrays.items()]

    def kernel(numbers_ref, *rest):
        refs = list(rest)
        seeds_ref = None if call.seeds is None else refs.pop(0)
        parts = [] if split is None else split(refs.pop(0)[...])
        body(
            Inside(
                arrays={name: refs.pop(0) for name in call.arrays},
                units=dict(zip(call.units, parts, strict=False)),
                totals=tuple(parts[len(call.units) :]),
                numbers=type(call.numbers)(
                    *(numbers_ref[0, i] for i in range(len(numbers)))
                ),
                seeds=[] if seeds_ref is None else [seeds_ref[0, i] for i in range(2)],
                outputs={name: refs.pop(0) for name in outputs},
                scratch=refs,
            )
        )

    values, in_specs = zip(*operands, strict=True)
    shapes, out_specs = zip(*outputs.values(), strict=True)
    size = math.prod(call.where.shape)
    moved = sum((reads or {}).get(n, 1) * x.nbytes for n, x in call.arrays.items())
    moved += sum(x.size * x.dtype.itemsize for x in shapes)
    results = pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=shapes,
        scratch_shapes=scratch,
        input_output_aliases={
            over[name]: i for i, name in enumerate(outputs) if name in over
        },
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=semantics,
            vmem_limit_bytes=max(vmem * 5 // 4, 16 * 2**20),
        ),
        cost_estimate=pl.CostEstimate(
            flops=20 * size,
            transcendentals=2 * size,
            bytes_accessed=moved,
        ),
        name=call.name,
    )(*values)
    return dict(zip(outputs, results, strict=True))


def store(
    call: Call, inside: Inside, moved: Mapping[str, Array], block: Block, place: Any
) -> None:
    """Writes what an update returned for the block at `place`, `w` rounded."""
    for name, ref in inside.outputs.items():
        value = moved[name]
        # Words are drawn only where they are used.
        if name == "w" and inside.seeds:
            value = stochastic_round(value, _words(call, inside.seeds, block, place))
        ref[...] = value.astype(ref.dtype)


def _words(call: Call, seeds: Sequence[Array], block: Block, place: Any) -> Array:
    """Random words for a block, by where in the leaf its numbers lie."""
    layer, row, column = place
    down = jax.lax.broadcasted_iota(jnp.int32, block, 0) + row * block[0]
    across = jax.lax.broadcasted_iota(jnp.int32, block, 1) + column * block[1]
    index = flat_index(call.where, call.shape, (layer, down, across))
    first, second = (seed.astype(jnp.uint32) for seed in seeds)
    return random_bits(first, second, index.astype(jnp.uint32))
