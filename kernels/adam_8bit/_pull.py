"""What takes the place of the weight decay, as the GPU kernel reads it."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl


class Pull(NamedTuple):
    """Coefficients of a leaf that is seen as rows."""

    array: jax.Array  # [rows], or [lines, columns]
    rows: int  # that share one line; 0 where each has but one coefficient

    def split(self, blocks: int, block: int) -> "Pull":
        """The same where every one of so many blocks in a row is a row."""
        if self.rows == 0:
            return Pull(jnp.repeat(self.array, blocks), 0)
        return Pull(self.array.reshape(-1, block), 1)

    def load(
        self,
        read: Callable[..., jax.Array],
        ref: Any,
        row: jax.Array,
        columns: Any,
        shape: tuple[int, int],
        layout: Any,
    ) -> jax.Array:
        """Those of some rows, by `read(ref, layout)`.

        Args:
          read: reads what a reference holds into the registers of a layout.
          ref: reference to the array.
          row: the first row.
          columns: the slice of columns.
          shape: of rows and columns.
          layout: of the numbers to multiply.

        Returns:
          An array of that shape.
        """
        down = pl.ds(row, shape[0])
        if self.rows == 0:
            return lax.broadcast_in_dim(read(ref.at[down]), shape, (0,))
        if self.rows == 1:
            return read(ref.at[down, columns], layout)
        line = read(ref.at[row // self.rows, columns], layout.reduce(0))
        return lax.broadcast_in_dim(line, shape, (1,))


def fold_pull(
    pull: jax.Array, shape: tuple[int, ...], kept: int, together: int
) -> Pull:
    """Coefficients of the rows of a leaf, as few as can be read.

    Args:
      pull: an array that broadcasts against the leaf, of its rank.
      shape: shape of the leaf.
      kept: axes that run over rows, the first ones.
      together: rows that are read at a time and must share a line, if they are not to
        have one each.

    Returns:
      The coefficients.
    """
    lead, trail = shape[:kept], shape[kept:]
    rows, columns = math.prod(lead), math.prod(trail)
    if all(n == 1 for n in pull.shape[kept:]):
        return Pull(
            jnp.broadcast_to(pull, (*lead, *(1,) * len(trail))).reshape(rows), 0
        )
    over = max((a + 1 for a in range(kept) if pull.shape[a] > 1), default=0)
    lines = math.prod(lead[:over])
    if lines > 1 and rows // lines % together:
        over, lines = kept, rows
    full = jnp.broadcast_to(pull, (*lead[:over], *(1,) * (kept - over), *trail))
    return Pull(full.reshape(lines, columns), rows // lines)
