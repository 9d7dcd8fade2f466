"""How the threads of a GPU hold blocks of numbers, so that a warp can sum one up."""

from typing import Any, NamedTuple

from jax.experimental.pallas import mosaic_gpu as plgpu

WARPS, LANES = 4, 32  # of a program, and of a warp


class Piece(NamedTuple):
    """A part of a block."""

    start: int
    size: int
    layout: Any  # how threads hold it


def pieces_of(height: int, width: int, columns: int, itemsize: int) -> list[Piece]:
    """Where a block is cut.

    A length that threads do not divide takes a second piece, which reaches back into
    the first: what both hold, both give the same, and is read before it is written.

    Args:
      height: rows, one for each warp, or one for them all.
      width: numbers in a block.
      columns: numbers in a row.
      itemsize: bytes of the parameter's numbers.

    Returns:
      One or two pieces.
    """
    threads = LANES * WARPS if height == 1 and width >= LANES * WARPS else LANES
    if width < threads:
        return [Piece(0, width, _layout(height, 1, 1))]
    whole = width - width % threads
    # As many neighbors a thread as fill 16 bytes, of those that start where they may.
    vector = next(
        v
        for v in (8, 4, 2, 1)
        if v * itemsize <= 16 and whole % (threads * v) == columns % v == 0
    )
    pieces = [Piece(0, whole, _layout(height, threads, vector))]
    if whole < width:
        pieces.append(Piece(width - threads, threads, _layout(height, threads, 1)))
    return pieces


def _layout(height: int, threads: int, vector: int) -> Any:
    """How threads hold rows: so many share one, each with so many neighbors of it."""
    warps: Any = plgpu.Replicated(WARPS)
    lanes: Any = plgpu.Replicated(LANES)
    tiles: tuple[tuple[int, ...], ...] = ((height, threads * vector),)
    if threads > 1:
        lanes = -2
        tiles = (*tiles, (vector,))
    if threads > LANES:
        warps = -3
        tiles = (tiles[0], (LANES * vector,), (vector,))
    elif height > 1:
        warps = -2 if threads == 1 else -3
    return plgpu.Layout.TILED(plgpu.Tiling(tiles), (warps,), (lanes,), -1)
