"""How far a network can stretch what goes in: the product of its layers' bounds."""

from typing import Any

import jax
import jax.numpy as jnp

from gnomon.parameters.gram import gram_bound
from gnomon.parameters.matrices import as_matrices
from gnomon.parameters.units import Rules, resolve_axes


def lipschitz_bound(
    params: Any,
    steps: int = 8,
    *,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> jax.Array:
    r"""An upper bound of the Lipschitz constant of a chain of layers.

    .. math::
      \prod_l \sigma_l, \qquad \sigma_l \le \text{the bound of Gram iteration}

    over all leaves that are matrices, each layer of a stack by itself. It holds for
    dense layers one after another with activations that stretch nothing, in the norm
    of vectors. A layer beside others (a residual branch, heads of attention, gains of a
    normalization) is not in it as it is in the network, and a convolution's matrix says
    less than `gnomon.parameters.gram.conv_gram_bound`.

    Args:
      params: the weights.
      steps: of Gram iteration, a whole number, default 8: each bound is then within 1 %
        of the value for matrices of rank up to 160.
      rules: ordered ``(regex, axes)`` pairs, see `units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The bound, a scalar in float32 or wider; 1 without a matrix.

    Example:
      >>> params = {"a": {"kernel": 2 * jnp.eye(3)}, "b": {"kernel": jnp.eye(3)}}
      >>> print(f"{lipschitz_bound(params):.2f}")
      2.01

    References:
      Delattre et al., `Efficient Bound of Lipschitz Constant for Convolutional Layers
      by Gram Iteration <https://arxiv.org/abs/2305.16173>`_, 2023
    """
    axes = resolve_axes(params, rules, stacked)
    # Sums of logarithms: the product of many layers overflows.
    log: Any = 0.0
    for leaf, of_leaf in zip(
        jax.tree.leaves(params),
        jax.tree.leaves(axes, is_leaf=lambda x: hasattr(x, "reduce")),
        strict=True,
    ):
        matrices = as_matrices(leaf, of_leaf)
        if matrices is not None and matrices.size:
            log = log + jnp.sum(jnp.log(gram_bound(matrices, steps)))
    return jnp.exp(log)
