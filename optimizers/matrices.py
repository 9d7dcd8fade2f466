"""Which leaves are hidden matrices, for methods that act on whole matrices.

Muon and its kin treat the matrices inside a network one way and everything else
(embeddings, the output head, gains, biases) another, by an Adam. optax tells them
apart by rank alone, so that an embedding counts as a matrix and an attention kernel
of rank three does not; here the leaf's path and its unit axes decide.
"""

import re

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from gnomon.parameters.paths import path_string
from gnomon.parameters.units import Axes, resolve_axes

OUTER = r"(^|/)([^/]*_)?(embed|embeddings?|head|lm_head|logits|classifier)(/|$)"


def hidden_matrices(params: optax.Params, outer: str = OUTER) -> optax.Params:
    """Dimension numbers of the hidden matrices of a model.

    The reduction axes are those inside one unit (`units.unit_axes`), the output
    axes all others: a query kernel ``(in, heads, head_dim)`` is the matrix that maps
    ``in`` to all heads.

    Args:
      params: the parameters.
      outer: regex of the leaves that embed or read out, which are no hidden matrices.

    Returns:
      A tree of ``optax.contrib.MuonDimensionNumbers``, None for every other leaf. It
      is what ``muon_weight_dimension_numbers`` of `optax.contrib.muon` takes, as a
      tree or as this function.

    Example:
      >>> params = {"embed": {"embedding": jax.ShapeDtypeStruct((256, 64), "float32")},
      ...           "query": {"kernel": jax.ShapeDtypeStruct((64, 4, 16), "float32")}}
      >>> numbers = hidden_matrices(params)
      >>> numbers["embed"]["embedding"] is None
      True
      >>> numbers["query"]["kernel"]
      MuonDimensionNumbers(reduction_axis=(0,), output_axis=(1, 2))

    References:
      Jordan, K. et al. (2024). Muon: An optimizer for hidden layers in neural networks.
    """

    def numbers(key_path, axes: Axes, leaf) -> MuonDimensionNumbers | None:
        if not axes.reduce or re.search(outer, path_string(key_path)):
            return None
        taken = {*axes.reduce, *axes.stack}
        outputs = tuple(axis for axis in range(len(leaf.shape)) if axis not in taken)
        return MuonDimensionNumbers(axes.reduce, outputs)

    return jax.tree_util.tree_map_with_path(
        numbers,
        resolve_axes(params),
        params,
        is_leaf=lambda node: isinstance(node, Axes),
    )
