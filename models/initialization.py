"""Schemes of initialization: what fills each kernel of a model.

A scheme is a function from the `Kernel` that a model describes to an initializer, a
function of a key, a shape and a dtype. Every model takes one as `init=`.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

from gnomon.models.layers import Initializer, fan_in, normal


class Kernel(NamedTuple):
    """What a model says of a kernel that it needs.

    Attributes:
      name: the module that holds it, by its path in the model or in its block:
        "embed", "attention/out", "conv1", "hidden/0", "head".
      role: "embedding"; "hidden"; "residual", the last of a residual branch; "head".
      variance: of its entries times its fan-in, or, of an embedding, of its entries, in
        the model's own scheme.
      depth: residual blocks, or hidden layers, of the model.
    """

    name: str
    role: Literal["embedding", "hidden", "residual", "head"]
    variance: float
    depth: int


Scheme = Callable[[Kernel], Initializer]


def gaussian(kernel: Kernel) -> Initializer:
    """The default scheme: normal entries of the variance that the model names.

    Args:
      kernel: what is to be filled.

    Returns:
      An initializer.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> init = gaussian(Kernel("head", "head", variance=4.0, depth=2))
      >>> draws = init(jax.random.key(0), (100, 50), jnp.float32)
      >>> print(f"{jnp.std(draws):.2f}")
      0.20
    """
    if kernel.role == "embedding":
        return normal(math.sqrt(kernel.variance))
    return fan_in(kernel.variance)
