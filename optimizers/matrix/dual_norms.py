r"""Norms of matrices, their duals, and steepest descent under each.

Under a norm the steepest descent of a gradient :math:`G` goes along

.. math::
  \mathrm{lmo}(G) = \arg\max_{\|T\| = 1} \langle G, T \rangle, \qquad
  \langle G, \mathrm{lmo}(G) \rangle = \|G\|_*

where the dual norm :math:`\|G\|_*` is how steep it is. For a matrix of :math:`n` inputs
and :math:`m` outputs, with a column :math:`g_j` an output and a row :math:`g^i` an
input, singular values :math:`\sigma` and the polar factor :math:`U V^\top`:

=================  =========================================  ========================
name               lmo                                        norm
=================  =========================================  ========================
``"spectral"``     :math:`\sqrt{m / n}\, U V^\top`            :math:`\sqrt{n / m}\,
                                                              \max \sigma`
``"spectral_max"`` :math:`\sqrt{\max(1, m / n)}\, U V^\top`   the same, by this scale
``"orthogonal"``   :math:`U V^\top`                           :math:`\max \sigma`
``"sign"``         :math:`\mathrm{sign}(G) / n`               :math:`n \max |w|`
``"max"``          :math:`\mathrm{sign}(G)`                   :math:`\max |w|`
``"unit"``         :math:`g_j / (\sqrt n |g_j|)`              :math:`\sqrt n
                                                              \max_j |w_j|`
``"input"``        :math:`\sqrt m\, g^i / |g^i|`              :math:`\max_i |w^i| /
                                                              \sqrt m`
``"input_mean"``   the same over :math:`n`                    the same times :math:`n`
``"frobenius"``    :math:`G / |G|_F`                          :math:`|W|_F`
=================  =========================================  ========================

``"spectral"``, ``"unit"`` and ``"sign"`` bound how far outputs move for inputs of root
mean square, or of largest entry, 1; ``"input"`` for inputs that are one of :math:`n`
tokens: lengths of steps that transfer from width to width. A convolution with
:math:`n_{in}` inputs and :math:`k^2` places is a matrix of :math:`n = n_{in} k^2`
inputs, and its spectral step is :math:`\sqrt{m / n_{in}} / k^2\, U V^\top`, because the
steps of all places add.

References:
  Bernstein & Newhouse, `Old Optimizer, New Norm: An Anthology
  <https://arxiv.org/abs/2409.20325>`_, 2024; Pethick et al., `Training Deep Learning
  Models with Norm-Constrained LMOs <https://arxiv.org/abs/2502.07529>`_, 2025
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from gnomon.optimizers.matrix.polar_express import polar_express
from gnomon.parameters.spectral import STEEP, polar
from gnomon.parameters.trees import safe_divide
from gnomon.parameters.units import unit_norm

Method: TypeAlias = Literal["newton_schulz", "polar_express", "svd"]
NormName: TypeAlias = Literal[
    "spectral",
    "spectral_max",
    "orthogonal",
    "sign",
    "max",
    "unit",
    "input",
    "input_mean",
    "frobenius",
]
Factor: TypeAlias = Callable[[jax.Array], jax.Array]
_WHOLE = (-2, -1)


class Shape(NamedTuple):
    """The sizes of a matrix that scales follow."""

    inputs: int
    outputs: int
    area: int = 1  # of a convolution's kernel, counted among the inputs


class _Ball(NamedTuple):
    """A norm without a scale, as functions of matrices [..., inputs, outputs]."""

    primal: Callable[[jax.Array], jax.Array]
    dual: Callable[[jax.Array], jax.Array]
    lmo: Callable[[jax.Array, Factor], jax.Array]


class Norm(NamedTuple):
    """A norm of matrices [..., inputs, outputs], its dual and its oracle."""

    ball: _Ball
    scale: Callable[[Shape], float]  # the size of the unit ball

    def primal(self, matrix: jax.Array, area: int = 1) -> jax.Array:
        """The norm, [...].

        Args:
          matrix: the matrices.
          area: of a convolution's kernel, default 1.
        """
        return self.ball.primal(matrix) / self._scale(matrix, area)

    def dual(self, matrix: jax.Array, area: int = 1) -> jax.Array:
        """The dual norm, [...].

        Args:
          matrix: the matrices.
          area: of a convolution's kernel, default 1.
        """
        return self.ball.dual(matrix) * self._scale(matrix, area)

    def lmo(self, matrix: jax.Array, factor: Factor, area: int = 1) -> jax.Array:
        """Where the linear function of the unit ball is largest; zero for zero.

        Args:
          matrix: the matrices.
          factor: gives polar factors, see :func:`polar_factor`.
          area: of a convolution's kernel, default 1.
        """
        return self.ball.lmo(matrix, factor) * self._scale(matrix, area)

    def _scale(self, matrix: jax.Array, area: int) -> float:
        # Of an empty leaf nothing is scaled.
        inputs, outputs = matrix.shape[-2:]
        return self.scale(Shape(max(inputs, 1), max(outputs, 1), area))


def polar_factor(method: Method, steps: int) -> Factor:
    """A function that gives the polar factors of matrices [..., inputs, outputs].

    Args:
      method: ``"newton_schulz"``, with the steep coefficients of Muon;
        ``"polar_express"``, with the best ones of each step; ``"svd"``, exact, in
        which singular values below rounding count for zero.
      steps: of either iteration, a whole number.

    Returns:
      The function. A single row or column is divided by its length, by any method.

    Example:
      >>> matrix = jnp.array([[3.0, 0.0], [0.0, -2.0]])
      >>> print(polar_factor("svd", 5)(matrix) + 0)
      [[ 1.  0.]
       [ 0. -1.]]
    """

    def factor(matrix: jax.Array) -> jax.Array:
        if not matrix.size:
            return matrix
        if min(matrix.shape[-2:]) == 1:
            return _length_one(matrix, _WHOLE)
        if method == "svd":
            left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
            rounding = jnp.finfo(matrix.dtype).eps * max(matrix.shape[-2:])
            kept = (values > rounding * values[..., :1])[..., None, :]
            left = jnp.where(kept, left, 0)
            return jnp.matmul(left, right, precision="highest")
        if method == "newton_schulz":
            return polar(matrix, steps, STEEP)
        return polar(matrix, coefficients=polar_express(steps))

    return factor


def _length_one(matrix: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    # By the largest entry first: the square of a small one would round to zero.
    largest = jnp.max(jnp.abs(matrix), axes, keepdims=True, initial=0)
    matrix = safe_divide(matrix, largest)
    return safe_divide(matrix, unit_norm(matrix, axes))


def _values(matrix: jax.Array) -> jax.Array:
    values: jax.Array = jnp.linalg.svd(matrix, compute_uv=False)
    return values


def _by_norms(axis: int) -> _Ball:
    """The largest norm along an axis, whose dual is the sum of norms."""

    def norms(matrix: jax.Array) -> jax.Array:
        return unit_norm(matrix, axis)

    return _Ball(
        lambda w: jnp.max(norms(w), _WHOLE),
        lambda g: jnp.sum(norms(g), _WHOLE),
        lambda g, _: _length_one(g, (axis,)),
    )


_SCHATTEN = _Ball(
    lambda w: jnp.max(_values(w), -1),
    lambda g: jnp.sum(_values(g), -1),
    lambda g, factor: factor(g),
)
_ENTRIES = _Ball(
    lambda w: jnp.max(jnp.abs(w), _WHOLE),
    lambda g: jnp.sum(jnp.abs(g), _WHOLE),
    lambda g, _: jnp.sign(g),
)
_OUTPUTS, _INPUTS = _by_norms(-2), _by_norms(-1)
_FROBENIUS = _Ball(
    lambda w: jnp.squeeze(unit_norm(w, _WHOLE), _WHOLE),
    lambda g: jnp.squeeze(unit_norm(g, _WHOLE), _WHOLE),
    lambda g, _: _length_one(g, _WHOLE),
)

NORMS: dict[str, Norm] = {
    "spectral": Norm(_SCHATTEN, lambda s: math.sqrt(s.outputs / (s.inputs * s.area))),
    "spectral_max": Norm(_SCHATTEN, lambda s: math.sqrt(max(1, s.outputs / s.inputs))),
    "orthogonal": Norm(_SCHATTEN, lambda s: 1.0),
    "sign": Norm(_ENTRIES, lambda s: 1 / s.inputs),
    "max": Norm(_ENTRIES, lambda s: 1.0),
    "unit": Norm(_OUTPUTS, lambda s: 1 / math.sqrt(s.inputs)),
    "input": Norm(_INPUTS, lambda s: math.sqrt(s.outputs)),
    "input_mean": Norm(_INPUTS, lambda s: math.sqrt(s.outputs) / s.inputs),
    "frobenius": Norm(_FROBENIUS, lambda s: 1.0),
}
