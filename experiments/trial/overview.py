"""A table of a model's parameters."""

import math
from typing import Any

import jax

from gnomon.experiments.console.table import table
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
      -----  ---------  -------  -----
      embed  (256, 32)  float32  8,192
      scale  (32,)      float32     32
      -----  ---------  -------  -----
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
    return table([header, *rows, total], words=3, total=True)
