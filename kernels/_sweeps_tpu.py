"""A step that needs sums first, as one TPU kernel that reads as little as it can.

Where units fit a block, sums and update are made of what one block holds. A layer that
is larger is walked block by block, once for every sweep and once for the update: the
arrays that several of these walks read are kept in VMEM from the first on where they
fit, and are read again where they do not. Units that are spread over devices, or that
no block holds, are summed by XLA first.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jax.sharding import NamedSharding, PartitionSpec

from gnomon.kernels._layout import LANES, SUBLANES, Layout, fold, layout, tile, unfold
from gnomon.kernels._rounding import random_bits, seeds_from, stochastic_round
from gnomon.kernels._sweeps import Blocks, Program, Totals, totals_of
from gnomon.kernels.adam.reference import compute_dtype

# Numbers in a block.
BLOCK = 2**17
# VMEM that a kernel may ask for; the smallest current chip has 64 MiB.
VMEM_BYTES = 48 * 2**20
# Float32 temporaries of one block that are alive at once.
TEMPORARIES = 8


class Call(NamedTuple):
    """One call of a kernel, arrays folded to (layers, rows, columns)."""

    program: Program
    arrays: dict[str, Array]  # read whole, and some of them written
    units: dict[str, Array]  # one number a unit each
    totals: Totals | None  # given, when no block holds a unit
    numbers: Any  # scalars of the step, a NamedTuple
    seeds: Array | None  # for stochastic rounding of w

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers, rows and columns."""
        layers, rows, columns = self.arrays["w"].shape
        return layers, rows, columns

    def block_bytes(self, block: tuple[int, int]) -> int:
        """VMEM for two buffers of every operand, and for what is made of them."""
        sizes = [x.dtype.itemsize for x in self.arrays.values()]
        sizes += [self.arrays[name].dtype.itemsize for name in self.program.writes]
        return math.prod(padded(block)) * (2 * sum(sizes) + 4 * TEMPORARIES)


def padded(block: tuple[int, int]) -> tuple[int, int]:
    """What a block takes in VMEM, in whole tiles."""
    rows, columns = block
    return -(-rows // SUBLANES) * SUBLANES, -(-columns // LANES) * LANES


def cut(rows: int, columns: int, axis: int | None) -> tuple[int, int]:
    """A block of about `BLOCK` numbers, padding counted; see `_layout.tile`."""
    high, wide = tile(*padded((rows, columns)), axis, BLOCK)
    return min(rows, high), min(columns, wide)


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
) -> dict[str, Array]:
    """Runs a program on one leaf.

    Args:
      program: the step.
      arrays: arrays of the leaf's shape, ``w`` among them.
      units: arrays with one number a unit, axes in ``reduce`` of size one.
      numbers: scalars of the step.
      reduce: the axes inside one unit, non-negative and ascending.
      stack: the axes over layers.
      key: a key that rounds ``w`` stochastically if it is bfloat16.
      sharding: how the arrays lie on a mesh.

    Returns:
      The arrays that the program writes, in the dtypes they came in.
    """
    w = arrays["w"]
    dtype = compute_dtype(w.dtype)
    reduce, stack = tuple(reduce), tuple(stack)
    stochastic = key is not None and w.dtype == jnp.bfloat16
    seeds = seeds_from(key) if key is not None and stochastic else None
    entries = [] if sharding is None else list(sharding.spec)
    entries += [None] * (w.ndim - len(entries))
    local = w.shape if sharding is None else sharding.shard_shape(w.shape)
    where = _layout(local, reduce, stack)
    probe = Call(program, dict(arrays), {}, None, numbers, seeds)
    held = where.axis is None or (
        probe.block_bytes(cut(*where.shape[1:], where.axis)) <= VMEM_BYTES
    )
    totals = None
    if not held or any(entries[axis] is not None for axis in reduce):
        wide = {name: x.astype(dtype) for name, x in (*arrays.items(), *units.items())}
        totals = totals_of(program, wide, numbers, reduce)

    def on_device(arrays, units, totals, numbers, seeds):
        if seeds is not None and names:
            # Shards count their numbers from zero, so each needs words of its own.
            shard = jax.lax.axis_index(names).astype(jnp.int32)
            seeds = seeds + jnp.stack([shard, jnp.zeros_like(shard)])
        small = functools.partial(_fold_units, where=where)
        call = Call(
            program,
            {name: fold(x, where) for name, x in arrays.items()},
            {name: small(x) for name, x in units.items()},
            None if totals is None else tuple(small(x) for x in totals),
            numbers,
            seeds,
        )
        if totals is not None:
            moved = _at_once(call, (), cut(*where.shape[1:], None))
        elif where.axis is not None:
            axes = (where.axis - 1,)
            moved = _at_once(call, axes, cut(*where.shape[1:], where.axis))
        elif math.prod(padded(where.shape[1:])) <= BLOCK:
            moved = _at_once(call, (0, 1), where.shape[1:])
        else:
            moved = _by_walks(call, cut(*where.shape[1:], None))
        shape = arrays["w"].shape
        return {name: unfold(x, where, shape) for name, x in moved.items()}

    names = tuple(
        name
        for entry in entries
        if entry is not None
        for name in (entry if isinstance(entry, tuple) else (entry,))
    )
    if sharding is None:
        return on_device(arrays, units, totals, numbers, seeds)
    leaf = PartitionSpec(*entries)
    per_unit = PartitionSpec(
        *(None if axis in reduce else entry for axis, entry in enumerate(entries))
    )
    everywhere = PartitionSpec()
    return jax.shard_map(
        on_device,
        mesh=sharding.mesh,
        in_specs=(leaf, per_unit, per_unit, everywhere, everywhere),
        out_specs=leaf,
        check_vma=False,
    )(arrays, units, totals, numbers, seeds)


def _layout(shape, reduce, stack) -> Layout:
    """As `_layout.layout`; a unit that is a layer keeps its rows and columns."""
    if len(reduce) + len(stack) < len(shape):
        return layout(shape, reduce, stack)
    sizes = [shape[axis] for axis in reduce] or [1]
    layers = math.prod(shape[axis] for axis in stack)
    folded = (layers, math.prod(sizes[:-1]), sizes[-1])
    return Layout((*stack, *reduce), folded, None)


def _fold_units(x: Array, where: Layout) -> Array:
    layers, rows, columns = where.shape
    if where.axis is None:
        return x.reshape(layers, 1, 1)
    x = x.transpose(where.order) if where.moves_data else x
    return x.reshape((layers, 1, columns) if where.axis == 1 else (layers, rows, 1))


def _sum(x: Array, axes: tuple[int, ...]) -> Array:
    for axis in axes:
        x = jnp.sum(x, axis=axis, keepdims=True)
    return x


def _at_once(
    call: Call, axes: tuple[int, ...], block: tuple[int, int]
) -> dict[str, Array]:
    """Sums over `axes` of blocks that hold units whole, and the update; or that alone.

    Every array is read once.
    """
    layers, rows, columns = call.shape
    dtype = compute_dtype(call.arrays["w"].dtype)
    given = {f"total {i}": total for i, total in enumerate(call.totals or ())}
    small = call.units | given

    def body(refs, outputs, numbers, bits):
        blocks = {name: ref[...].astype(dtype) for name, ref in refs.items()}
        totals = tuple(blocks[name] for name in given)
        if call.totals is None:
            for sweep in call.program.sweeps:
                terms = sweep.terms(blocks, totals, numbers)
                totals += tuple(_sum(term, axes) for term in terms)
        moved = call.program.update(blocks, totals, numbers)
        _store(moved, outputs, lambda: bits(*(pl.program_id(i) for i in range(3))))

    def unit_spec(x):
        sizes = [
            1 if n == 1 else size for n, size in zip(x.shape[1:], block, strict=True)
        ]
        # A block's index along an axis of size one is always zero.
        cuts = [n != 1 for n in x.shape[1:]]
        return pl.BlockSpec(
            (None, *sizes),
            lambda i, j, k: (i, j if cuts[0] else 0, k if cuts[1] else 0),
        )

    return _call(
        call,
        body,
        block,
        grid=(layers, pl.cdiv(rows, block[0]), pl.cdiv(columns, block[1])),
        small=small,
        whole=lambda name: pl.BlockSpec((None, *block), lambda i, j, k: (i, j, k)),
        unit_spec=unit_spec,
        semantics=("parallel",) * 3,
        passes=len(call.arrays) + len(call.program.writes),
    )


def _by_walks(call: Call, block: tuple[int, int]) -> dict[str, Array]:
    """Walks over the blocks of a layer, one a sweep and one for the update."""
    layers, rows, columns = call.shape
    down, across = pl.cdiv(rows, block[0]), pl.cdiv(columns, block[1])
    sweeps = call.program.sweeps
    last = len(sweeps)
    dtype = compute_dtype(call.arrays["w"].dtype)
    walks = {
        name: [p for p, sweep in enumerate(sweeps) if name in sweep.reads] + [last]
        for name in call.arrays
    }
    again = [name for name, of in walks.items() if len(of) > 1]
    sizes = {name: call.arrays[name].dtype.itemsize for name in again}
    area = math.prod(padded(block))
    resident = call.block_bytes(block) + down * across * area * sum(sizes.values())
    keeps = resident <= VMEM_BYTES
    if keeps:
        walks = {name: of[:1] for name, of in walks.items()}

    def body(refs, outputs, numbers, bits, *scratch):
        layer, walk, row, column = (pl.program_id(i) for i in range(4))
        sums, kept = scratch[0], dict(zip(again, scratch[1:], strict=False))
        place = row * across + column
        units = {name: refs[name][...].astype(dtype) for name in call.units}

        def load(names, now):
            blocks = {}
            for name in names:
                late = keeps and now != walks[name][0]
                raw = kept[name][place] if late else refs[name][...]
                if keeps and name in kept and not late:
                    kept[name][place] = raw
                blocks[name] = raw.astype(dtype)
            return blocks | units

        start = 0
        for now, sweep in enumerate(sweeps):

            @pl.when(walk == now)
            def _(now=now, sweep=sweep, start=start):
                totals = tuple(sums[i] for i in range(start))
                terms = sweep.terms(load(sweep.reads, now), totals, numbers)
                first = place == 0
                for i, term in enumerate(terms, start):
                    inside = _inside(block, (rows, columns), row, column)
                    term = term if inside is None else jnp.where(inside, term, 0)
                    part = _sum(term, (0, 1))
                    sums[i] = jnp.where(first, part, sums[i] + part)

            start += sweep.sums

        @pl.when(walk == last)
        def _():
            totals = tuple(sums[i] for i in range(start))
            blocks = load(call.arrays, last)
            moved = call.program.update(blocks, totals, numbers)
            _store(moved, outputs, lambda: bits(layer, row, column))

    def spec(of):
        def index(layer, walk, row, column):
            reads = functools.reduce(jnp.logical_or, [walk == p for p in of])
            # Elsewhere rests on the block that is next, or was last: no copy is made.
            after = walk > of[-1]
            rest = [jnp.where(after, n - 1, 0) for n in (down, across)]
            return (
                layer,
                jnp.where(reads, row, rest[0]),
                jnp.where(reads, column, rest[1]),
            )

        return pl.BlockSpec((None, *block), index)

    return _call(
        call,
        body,
        block,
        grid=(layers, last + 1, down, across),
        small=call.units,
        whole=lambda name: spec([last] if name is None else walks[name]),
        unit_spec=lambda x: pl.BlockSpec((None, 1, 1), lambda i, p, j, k: (i, 0, 0)),
        semantics=("parallel", "arbitrary", "arbitrary", "arbitrary"),
        passes=sum(map(len, walks.values())) + len(call.program.writes),
        scratch=[
            pltpu.VMEM((sum(sweep.sums for sweep in sweeps), 1, 1), dtype),
            *(
                pltpu.VMEM((down * across, *block), call.arrays[name].dtype)
                for name in again
                if keeps
            ),
        ],
        vmem=resident if keeps else call.block_bytes(block),
    )


def _inside(block, shape, row, column) -> Array | None:
    """Which numbers of a block lie in the array; None where all of any block do."""
    inside = None
    for axis, at in enumerate((row, column)):
        if shape[axis] % block[axis]:
            index = jax.lax.broadcasted_iota(jnp.int32, block, axis)
            here = index + at * block[axis] < shape[axis]
            inside = here if inside is None else inside & here
    return inside


def _store(moved, outputs, bits) -> None:
    """Writes what an update returned; draws bits for `w` only where it is to."""
    for name, ref in outputs.items():
        value = moved[name]
        words = bits() if name == "w" else None
        if words is not None:
            value = stochastic_round(value, words)
        ref[...] = value.astype(ref.dtype)


def _call(
    call, body, block, *, grid, small, whole, unit_spec, semantics, passes, **options
) -> dict[str, Array]:
    """The `pallas_call` of `body(refs, outputs, numbers, bits, *scratch)`."""
    _, rows, columns = call.shape
    arrays, writes = call.arrays, call.program.writes
    dtype = compute_dtype(arrays["w"].dtype)
    scalar = pl.BlockSpec(memory_space=pltpu.SMEM)
    numbers = [jnp.asarray(x).astype(dtype) for x in call.numbers]
    # Of rank two, or a TPU refuses them with the axis that jax.vmap adds.
    operands = [(jnp.stack(numbers)[None], scalar)]
    if call.seeds is not None:
        operands.append((call.seeds[None], scalar))
    first = len(operands)
    operands += [(x, whole(name)) for name, x in arrays.items()]
    operands += [(x, unit_spec(x)) for x in small.values()]
    place = {name: first + i for i, name in enumerate(arrays)}

    def kernel(*refs):
        numbers_ref, *rest = refs
        seeds_ref = None if call.seeds is None else rest.pop(0)
        count = len(arrays) + len(small)
        inputs = dict(zip((*arrays, *small), rest[:count], strict=True))
        outputs = dict(zip(writes, rest[count : count + len(writes)], strict=True))

        def bits(layer, row, column):
            if seeds_ref is None:
                return None
            down = jax.lax.broadcasted_iota(jnp.int32, block, 0) + row * block[0]
            across = jax.lax.broadcasted_iota(jnp.int32, block, 1) + column * block[1]
            index = layer * (rows * columns) + down * columns + across
            first, second = (seeds_ref[0, i].astype(jnp.uint32) for i in range(2))
            return random_bits(first, second, index.astype(jnp.uint32))

        scalars = type(call.numbers)(*(numbers_ref[0, i] for i in range(len(numbers))))
        body(inputs, outputs, scalars, bits, *rest[count + len(writes) :])

    values, in_specs = zip(*operands, strict=True)
    vmem = options.get("vmem", call.block_bytes(block))
    mean = sum(x.dtype.itemsize for x in arrays.values()) / len(arrays)
    results = pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=in_specs,
        out_specs=[whole(None)] * len(writes),
        out_shape=[jax.ShapeDtypeStruct(call.shape, arrays[n].dtype) for n in writes],
        scratch_shapes=options.get("scratch", []),
        input_output_aliases={place[name]: i for i, name in enumerate(writes)},
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=semantics,
            vmem_limit_bytes=max(vmem * 5 // 4, 16 * 2**20),
        ),
        cost_estimate=pl.CostEstimate(
            flops=20 * math.prod(call.shape),
            transcendentals=2 * math.prod(call.shape),
            bytes_accessed=int(passes * mean * math.prod(call.shape)),
        ),
        name=call.program.name,
    )(*values)
    return dict(zip(writes, results, strict=True))
