"""Singular values of layers: the largest of the weights, all of a small gradient's.

A leaf of rank two or more is read as the matrix that maps its inputs to its outputs
(`gnomon.parameters.units.unit_axes`), and a layer as the block-diagonal matrix of
its leaves: its spectral norm is the largest of theirs, and its singular values are
theirs together.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gnomon.dynamics.layers import Layers
from gnomon.parameters.matrices import as_matrices
from gnomon.parameters.spectral import largest_singular_value
from gnomon.parameters.stacks import unstack
from gnomon.parameters.trees import compute_dtype
from gnomon.parameters.units import Axes, unit_axes


def as_matrix(path: str, leaf: jax.Array) -> jax.Array | None:
    """The matrix [inputs, outputs] that a leaf holds, in float32 or wider.

    Args:
      path: the leaf's path, its names joined by ``/``.
      leaf: the array, of one layer.

    Returns:
      The matrix, or None for a bias, a scale or any other leaf without one.

    Example:
      >>> as_matrix("attention/query/kernel", jnp.ones((8, 2, 4))).shape
      (8, 8)
      >>> print(as_matrix("attention/query/bias", jnp.ones((2, 4))))
      None
    """
    axes = Axes(unit_axes(path, leaf.shape))
    matrices = as_matrices(leaf, axes)
    if matrices is None or not leaf.size:
        return None
    return matrices[0].astype(compute_dtype(leaf.dtype))


def _matrices(tree: Any, layers: Layers) -> list[jax.Array | None]:
    leaves = jax.tree.leaves(unstack(tree, layers.stacked))
    return [as_matrix(p, leaf) for p, leaf in zip(layers.paths, leaves, strict=True)]


def start_vectors(params: Any, layers: Layers) -> dict[str, jax.Array]:
    """The vectors that the first power iteration starts from.

    Args:
      params: the weights, or their shapes.
      layers: their grouping.

    Returns:
      A unit vector [outputs] for the path of each leaf that is a matrix.
    """

    def draw(number: int, outputs: int, dtype: Any) -> jax.Array:
        # Random, so that it is not orthogonal to what is looked for.
        vector = jax.random.normal(jax.random.key(number), (outputs,), dtype)
        unit: jax.Array = vector / jnp.linalg.norm(vector)
        return unit

    shapes = jax.eval_shape(lambda tree: _matrices(tree, layers), params)
    return {
        path: draw(number, matrix.shape[1], matrix.dtype)
        for number, (path, matrix) in enumerate(zip(layers.paths, shapes, strict=True))
        if matrix is not None
    }


def spectral_norms(
    params: Any, vectors: dict[str, jax.Array], layers: Layers, iterations: int = 4
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The spectral norm of every layer, and of the whole model in the last row.

    Args:
      params: the weights.
      vectors: of `start_vectors`, or of the last call.
      layers: the grouping.
      iterations: of each call.

    Returns:
      An array [layers + 1], NaN for a layer without matrices, and the vectors for the
      next call.
    """
    found, turned = {}, {}
    for path, matrix in zip(layers.paths, _matrices(params, layers), strict=True):
        if matrix is not None:
            found[path], turned[path] = largest_singular_value(
                matrix, vectors[path], iterations
            )

    def largest(values: list[jax.Array]) -> jax.Array:
        return jnp.max(jnp.stack(values)) if values else jnp.full((), jnp.nan)

    return jnp.stack([largest(v) for v in _by_layer(found, layers)]), turned


def _by_layer(found: dict[str, Any], layers: Layers) -> list[list[Any]]:
    """What was found by path, listed for each layer and for the whole model."""
    listed: list[list[Any]] = [[] for _ in layers.names]
    for path, layer in zip(layers.paths, layers.groups, strict=True):
        if path in found and layer >= 0:
            listed[layer].append(found[path])
    return [*listed, list(found.values())]


class Rank(NamedTuple):
    """How many directions a layer's gradient has.

    Attributes:
      nuclear_norm: sum of the singular values.
      effective_rank: exponential of the entropy of the singular values over their sum;
        between one and the smaller side of the matrix. NaN for a zero gradient.
    """

    nuclear_norm: jax.Array
    effective_rank: jax.Array


def rank(values: jax.Array) -> Rank:
    r"""Nuclear norm and effective rank of singular values.

    .. math:: \operatorname{erank} = \exp \Big( -\sum_i p_i \log p_i \Big), \qquad
        p_i = \sigma_i / \sum_j \sigma_j

    Args:
      values: singular values [k], not negative.

    Returns:
      Scalars; an effective rank of NaN where all values are zero.

    References:
      Roy & Vetterli, The effective rank: a measure of effective dimensionality, 2007.

    Example:
      >>> print(*rank(jnp.array([2.0, 2.0, 0.0])))
      4.0 2.0
    """
    total = jnp.sum(values)
    share = values / jnp.where(total > 0, total, jnp.nan)
    entropy = -jnp.sum(jnp.where(share > 0, share * jnp.log(share), share))
    return Rank(total, jnp.exp(entropy))


def gradient_ranks(grads: Any, layers: Layers, largest: int = 128) -> Rank:
    """Nuclear norm and effective rank of the gradient of every small layer.

    Args:
      grads: the gradients.
      layers: the grouping.
      largest: the smaller side of a matrix up to which it is decomposed. A layer that
        has a larger one is NaN, for its cost would grow with the cube.

    Returns:
      Arrays [layers]; NaN for a layer without matrices, with one too large, or with a
      gradient that is not finite.

    References:
      Li et al., How Instruction and Reasoning Data shape Post-Training: Data Quality
      through the Lens of Layer-wise Gradients, 2025.
    """
    found = {}
    for path, matrix in zip(layers.paths, _matrices(grads, layers), strict=True):
        if matrix is not None:
            small = min(matrix.shape) <= largest
            # A decomposition of what is not finite need not end.
            finite = jnp.all(jnp.isfinite(matrix))
            matrix = jnp.where(finite, matrix, 0)
            values = jnp.linalg.svd(matrix, compute_uv=False) if small else None
            found[path] = None if values is None else jnp.where(finite, values, jnp.nan)

    def of_layer(values: list[jax.Array | None]) -> Rank:
        known = [v for v in values if v is not None]
        if not known or len(known) < len(values):
            return Rank(jnp.full((), jnp.nan), jnp.full((), jnp.nan))
        return rank(jnp.concatenate(known))

    rows = [of_layer(values) for values in _by_layer(found, layers)[:-1]]
    return Rank(*(jnp.stack(field) for field in zip(*rows, strict=True)))
