"""A table of a model's parameters."""

import math
from typing import Any

import jax

from gnomon.experiments.trial.signature import path_name


def parameter_table(params: Any) -> str:
    """Lists the parameters of a model: path, shape, dtype, size, and the total.

    Args:
      params: A pytree of arrays or of `ShapeDtypeStruct`s.

    Returns:
      The table, without a newline at its end.

    Example:
      >>> params = {"embed": jax.numpy.ones((256, 32)), "scale": jax.numpy.ones(32)}
      >>> print(parameter_table(params))
      path   shape      dtype     size
      --------------------------------
      embed  (256, 32)  float32  8,192
      scale  (32,)      float32     32
      --------------------------------
      total             0.03 MB  8,224
    """
    leaves = jax.tree_util.tree_leaves_with_path(params)
    rows = [
        (path_name(path), str(tuple(leaf.shape)), str(leaf.dtype), f"{leaf.size:,}")
        for path, leaf in leaves
    ]
    size = sum(leaf.size for _, leaf in leaves)
    # From shapes, for a ShapeDtypeStruct has no nbytes.
    megabytes = sum(leaf.dtype.itemsize * math.prod(leaf.shape) for _, leaf in leaves)
    header = ("path", "shape", "dtype", "size")
    total = ("total", "", f"{megabytes / 1e6:.2f} MB", f"{size:,}")
    columns = list(zip(header, *rows, total, strict=True))
    widths = [max(map(len, column)) for column in columns]
    lines = [_line(cells, widths) for cells in (header, *rows, total)]
    rule = "-" * len(lines[0])
    return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def _line(cells: tuple[str, ...], widths: list[int]) -> str:
    *texts, number = cells
    left = [text.ljust(width) for text, width in zip(texts, widths, strict=False)]
    return "  ".join([*left, number.rjust(widths[-1])])
