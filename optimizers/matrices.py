"""Which leaves are hidden matrices, for methods that act on whole matrices.

Muon and its kin treat the matrices inside a network one way and everything else
(embeddings, the output head, gains, biases) another, by an Adam. optax tells them
apart by rank alone, so that an embedding counts as a matrix, an attention kernel of
rank three does not, and the biases of stacked layers do; here the leaf's role and its
axes decide (`gnomon.parameters.roles`, `gnomon.parameters.matrices`).
"""

import re
from typing import Any

import jax
import optax
from optax.contrib import MuonDimensionNumbers

from gnomon.parameters.matrices import matrix_axes
from gnomon.parameters.paths import path_string
from gnomon.parameters.roles import Role, roles, warn_of_guesses
from gnomon.parameters.units import Axes, Rules, resolve_axes

__all__ = ["head_matrices", "hidden_matrices"]

# The kernel of a convolution over a sequence has as many axes as that of heads.
_CONVOLUTION = re.compile(r"(?i)conv")


def hidden_matrices(
    params: optax.Params,
    outer: str | None = None,
    *,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.Params:
    """Dimension numbers of the hidden matrices of a model.

    The reduction axes are those inside one unit (`units.unit_axes`), the output
    axes all others: a query kernel ``(in, heads, head_dim)`` is the matrix that maps
    ``in`` to all heads. The axis of stacked layers is in neither, so that optax takes
    it for a batch: each layer is a matrix of its own.

    Args:
      params: the parameters.
      outer: regex of the leaves that embed or read out, which are no hidden matrices;
        by default those of these roles, see :mod:`gnomon.parameters.roles`. A head
        that is a guess is said in a warning.
      rules: ordered ``(regex, axes)`` pairs, see `units.resolve_axes`.
      stacked: regex of further leaves that stack layers along axis 0. Bind it
        by ``functools.partial`` for `optax.contrib.muon`.

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

    axes = resolve_axes(params, rules, stacked)
    kinds = roles(params, rules, stacked)
    if outer is None:
        warn_of_guesses(kinds, "hidden_matrices", "name the outer leaves by outer=...")

    def numbers(
        key_path: tuple[Any, ...], leaf: jax.Array, of_units: Axes, role: Role
    ) -> MuonDimensionNumbers | None:
        if outer is None:
            is_hidden = role.role == "hidden"
        else:
            is_hidden = not re.search(outer, path_string(key_path))
        found = matrix_axes(of_units, len(leaf.shape))
        if found is None or not is_hidden:
            return None
        return MuonDimensionNumbers(found.inputs, found.outputs)

    return jax.tree_util.tree_map_with_path(numbers, params, axes, kinds)


def head_matrices(
    params: optax.Params,
    outer: str | None = None,
    *,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.Params:
    """Dimension numbers of the hidden matrices of a model, one for each head.

    As :func:`hidden_matrices`, but an attention kernel of several heads is as many
    matrices: a query kernel ``(in, heads, head_dim)`` maps ``in`` to each head apart,
    and an output kernel ``(heads, head_dim, out)`` maps each head to ``out``. Kernels
    with ``conv`` on their path are not divided.

    Args:
      params: the parameters.
      outer: as of :func:`hidden_matrices`.
      rules: ordered ``(regex, axes)`` pairs, see `units.resolve_axes`.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      A tree as that of :func:`hidden_matrices`: the axis of heads is in neither field,
      so that optax takes it for a batch.

    Example:
      >>> params = {"query": {"kernel": jax.ShapeDtypeStruct((64, 4, 16), "float32")},
      ...           "out": {"kernel": jax.ShapeDtypeStruct((4, 16, 64), "float32")}}
      >>> numbers = head_matrices(params, outer="head")
      >>> numbers["query"]["kernel"]
      MuonDimensionNumbers(reduction_axis=(0,), output_axis=(2,))
      >>> numbers["out"]["kernel"]
      MuonDimensionNumbers(reduction_axis=(1,), output_axis=(2,))
    """

    def split(
        key_path: tuple[Any, ...], _: Any, numbers: MuonDimensionNumbers | None
    ) -> MuonDimensionNumbers | None:
        if numbers is None or _CONVOLUTION.search(path_string(key_path)):
            return numbers
        inputs, outputs = numbers
        if len(inputs) + len(outputs) != 3:
            return numbers
        # The first of the two axes counts heads.
        return MuonDimensionNumbers(inputs[-1:], outputs[-1:])

    found = hidden_matrices(params, outer, rules=rules, stacked=stacked)
    return jax.tree_util.tree_map_with_path(split, params, found)
