"""Blocks of folded leaves on a TPU: how large, how much memory, and where they end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from gnomon.kernels.engine.layout import LANES, SUBLANES, Layout, tile

# Float32 temporaries of one block that are alive at once.
TEMPORARIES = 8

Block = tuple[int, int]


def padded(block: Block) -> Block:
    """What a block takes in VMEM, in whole tiles."""
    rows, columns = block
    return -(-rows // SUBLANES) * SUBLANES, -(-columns // LANES) * LANES


def cut(where: Layout, numbers: int, axis: int | None = None) -> Block:
    """A block of about so many numbers, padding counted; see `layout.tile`."""
    _, rows, columns = where.shape
    high, wide = tile(*padded((rows, columns)), axis, numbers)
    if where.axis == 2 and high > LANES:
        high -= high % LANES  # for `turns_units`
    return min(rows, high), min(columns, wide)


def turns_units(where: Layout, block: Block) -> bool:
    """Whether units are rows and what is known of each can be given side by side.

    An array of one column takes as much memory as one of 128.
    """
    return where.axis == 2 and (block[0] == where.shape[1] or block[0] % LANES == 0)


def block_bytes(block: Block, arrays: Mapping[str, Any], writes: Sequence[str]) -> int:
    """VMEM for two buffers of every operand, and for what is made of them."""
    sizes = [jnp.dtype(x.dtype).itemsize for x in arrays.values()]
    sizes += [jnp.dtype(arrays[name].dtype).itemsize for name in writes]
    return math.prod(padded(block)) * (2 * sum(sizes) + 4 * TEMPORARIES)


def within(shape: Sequence[int], block: Block, place: Any) -> Array | None:
    """Which numbers of a block lie in the array; None where all of any block do."""
    inside = None
    for axis, at in enumerate(place[1:]):
        if shape[axis + 1] % block[axis]:
            index = jax.lax.broadcasted_iota(jnp.int32, block, axis)
            here = index + at * block[axis] < shape[axis + 1]
            inside = here if inside is None else inside & here
    return inside
