"""Arrays of examples on a mesh: each device keeps its own examples."""

from typing import Any

import jax
from jax.sharding import PartitionSpec as P

AXIS = "data"
"""The axis of a mesh along which examples lie."""


def by_example(tree: Any) -> Any:
    """Arrays whose first axis is cut along an axis ``data`` of the mesh.

    Where weights are cut along that axis too, XLA may else cut activations as it finds
    the weights, and gather all examples on every device. Without such a mesh
    (`jax.set_mesh`), or where it does not divide an array's first axis, an array is as
    it was.

    Args:
      tree: arrays [examples, ...].

    Example:
      >>> by_example({"x": 1.0})
      {'x': 1.0}
    """
    mesh = jax.sharding.get_abstract_mesh()
    parts = mesh.shape.get(AXIS, 1)
    if parts == 1 or mesh.manual_axes:
        return tree

    def held(x: jax.Array) -> jax.Array:
        if not x.ndim or x.shape[0] % parts:
            return x
        rest = [P.UNCONSTRAINED] * (x.ndim - 1)
        cut: jax.Array = jax.lax.with_sharding_constraint(x, P(AXIS, *rest))
        return cut

    return jax.tree.map(held, tree)
