"""The size of a model.

The FLOPs of a forward pass are each model class's own `forward_flops`.
"""

import math
from typing import Any

import jax


def parameter_count(params: Any) -> int:
    """The number of scalars in a tree of arrays, or of abstract shapes.

    Example:
      >>> import jax.numpy as jnp
      >>> parameter_count({"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)})
      16
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
