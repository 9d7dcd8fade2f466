"""How much of a leaf with moments in eight bits a TPU takes at a time."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gnomon.kernels.companding import folded
from gnomon.kernels.engine.sizes import Tpu
from gnomon.kernels.engine.tpu.blocks import padded

# Arrays of float32 or of words, of one block of each row, that are alive at once.
TEMPORARIES = 12


class Tiles(NamedTuple):
    """A leaf as rows, and the part of them in one grid step."""

    rows: int
    columns: int
    blocks: int  # of a row
    height: int  # rows of a part
    width: int  # columns of a part
    split: bool  # whether each block has become a row


def tiles(shape: Sequence[int], block: int, sizes: Tpu) -> Tiles:
    """How a leaf of some shape is cut."""
    lead, columns = folded(tuple(shape), block)
    rows, blocks = math.prod(lead), -(-columns // block)
    # A few long rows leave registers empty; their blocks can as well be rows.
    split = rows < sizes.coded_blocks and columns % block == 0
    if split:
        rows, columns, blocks = rows * blocks, block, 1
    most = sizes.coded_blocks
    width = columns if blocks <= most else most * block
    return Tiles(rows, columns, blocks, min(rows, sizes.coded_rows), width, split)


def vmem_bytes(
    shape: Sequence[int], *dtypes: jax.typing.DTypeLike, block: int, sizes: Tpu
) -> int:
    """VMEM that one grid step takes, if every number has a pull of its own.

    Args:
      shape: of the leaf.
      *dtypes: of the parameter, which is read and written, and of the gradient.
      block: numbers that share one scale.
      sizes: how much it takes at a time.
    """
    cut = tiles(shape, block, sizes)
    parameter, *others = (jnp.dtype(dtype).itemsize for dtype in dtypes)
    # Two buffers of each: two arrays of codes in and out, and the pull.
    each = 2 * (2 * parameter + sum(others) + 4 + 4)
    scales = 2 * 4 * 4 * math.prod(padded((sizes.coded_blocks, cut.height)))
    rows, _ = padded((cut.height, 1))
    temporaries = 4 * TEMPORARIES * rows * min(-(-cut.width // 128) * 128, block)
    return math.prod(padded((cut.height, cut.width))) * each + scales + temporaries


def too_wide(
    shape: Sequence[int] | None,
    *dtypes: jax.typing.DTypeLike,
    block: int,
    sizes: Tpu,
) -> str | None:
    """Why a TPU cannot hold the blocks of a grid step, or None."""
    if shape is None or not math.prod(shape):
        return None
    needed = vmem_bytes(shape, *dtypes, block=block, sizes=sizes)
    if needed <= sizes.vmem:
        return None
    return f"blocks of {block} take {needed >> 20} MiB of its {sizes.vmem >> 20} MiB"
