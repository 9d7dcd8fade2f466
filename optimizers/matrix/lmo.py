"""Steepest descent under a norm, and the linear minimization oracle of each leaf."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.matrix.dual_norms import (
    NORMS,
    Method,
    Norm,
    NormName,
    polar_factor,
)
from gnomon.optimizers.mechanisms.leafwise import Hyperparameters, leafwise
from gnomon.parameters.checks import require_choice, require_within
from gnomon.parameters.matrices import matrices_in, of_matrices, unsharded
from gnomon.parameters.roles import Kind, Role, roles, warn_of_guesses
from gnomon.parameters.trees import map_leaves
from gnomon.parameters.units import Axes, Rules, resolve_axes

__all__ = ["ScaleByAveragedLmoState", "ScaleByLmoState", "scale_by_lmo"]

# A norm for all leaves, or one a role; leaves of other roles pass as they are.
Norms: TypeAlias = NormName | Mapping[Kind, NormName]
Momentum: TypeAlias = Literal["none", "average", "nesterov"]
# A kernel of so many axes is that of a convolution over an image.
_IMAGE = 4


class ScaleByLmoState(NamedTuple):
    """State of :func:`scale_by_lmo`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]


class ScaleByAveragedLmoState(NamedTuple):
    """State of :func:`scale_by_lmo` with momentum."""

    count: jax.Array  # type: ignore[assignment]  # updates made
    mu: optax.Updates  # average of gradients, in their dtypes


class Reading(NamedTuple):
    """How a leaf is read as matrices, and which norm measures them."""

    norm: Norm
    role: Kind
    axes: Axes
    rows_are_inputs: bool  # an embedding: a row is what one input, a token, gives
    area: int  # of a convolution's kernel

    def matrices(self, leaf: jax.Array) -> jax.Array:
        """The leaf as [batch, inputs, outputs]."""
        found = matrices_in(leaf, self.axes, vectors=True)
        return jnp.swapaxes(found, -2, -1) if self.rows_are_inputs else found

    def leaf(self, matrices: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The leaf of this shape that is read as these matrices."""
        if self.rows_are_inputs:
            matrices = jnp.swapaxes(matrices, -2, -1)
        return of_matrices(matrices, self.axes, shape)


def readings(
    norms: Norms, rules: Rules | None, stacked: str | None, name: str
) -> Callable[[Any], Any]:
    """How each leaf is read, as a function of the parameters.

    Args:
      norms: a norm for all leaves, or one a role.
      rules: ordered ``(regex, axes)`` pairs, see `units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.
      name: who asks, for messages.

    Returns:
      A function from parameters to a tree of :class:`Reading`, None at leaves of a role
      without a norm.

    Raises:
      ValueError: if a norm or a role is unknown.
    """
    by_role = (
        norms if isinstance(norms, Mapping) else dict.fromkeys(get_args(Kind), norms)
    )
    for role, norm in by_role.items():
        require_choice("norms has a role", role, Kind)
        require_choice("norms", norm, NormName)
    told_apart = len(set(by_role.values())) > 1 or len(by_role) < len(get_args(Kind))

    def plan(params: optax.Params) -> Any:
        kinds = roles(params, rules, stacked)
        if told_apart:
            warn_of_guesses(kinds, name, "give the norms of the roles another way")

        def of_leaf(w: Any, axes: Axes, role: Role) -> tuple[Reading | None]:
            if role.role not in by_role:
                return (None,)
            rank = len(w.shape) - len(axes.stack)
            rows = role.role == "embedding" and axes.reduce == (len(w.shape) - 1,)
            area = 1
            if rank >= _IMAGE and len(axes.reduce) == rank - 1:
                for axis in axes.reduce[:-1]:
                    area *= w.shape[axis]
            norm = NORMS[by_role[role.role]]
            return (Reading(norm, role.role, axes, rows, max(area, 1)),)

        axes = resolve_axes(params, rules, stacked)
        return map_leaves(of_leaf, params, (), axes, kinds)[0]

    return plan


def oracle(
    name: str,
    norms: Norms,
    hyperparameters: Mapping[str, Mapping[str, Any]],
    length: Callable[[Any, Reading], jax.typing.ArrayLike],
    *,
    momentum: Momentum,
    decay: str,
    method: Method,
    steps: int,
    by_dual_norm: bool,
    rules: Rules | None,
    stacked: str | None,
) -> optax.GradientTransformationExtraArgs:
    """The transform of :func:`scale_by_lmo`, with a length for each leaf.

    Args:
      name: its name, for messages.
      norms: a norm for all leaves, or one a role.
      hyperparameters: as of `leafwise`.
      length: what the direction of a leaf is multiplied by, of the numbers and of how
        the leaf is read.
      momentum: as of :func:`scale_by_lmo`.
      decay: the name of the number that is its decay.
      method: how polar factors are found.
      steps: of that method.
      by_dual_norm: whether directions are multiplied by the dual norm.
      rules: ordered ``(regex, axes)`` pairs.
      stacked: regex of the leaves that stack layers along axis 0.
    """
    require_choice("momentum", momentum, Momentum)
    require_choice("method", method, Method)
    require_within("[1, inf)", steps=steps, whole=True)
    factor = polar_factor(method, steps)

    def direction(h: Any, g: jax.Array) -> jax.Array:
        reading: Reading = h.axes

        def solve(g: jax.Array) -> jax.Array:
            matrices = reading.matrices(g)
            found = reading.norm.lmo(matrices, factor, reading.area)
            if by_dual_norm:
                found = found * jnp.sum(matrices * found, (-2, -1), keepdims=True)
            return reading.leaf(found, g.shape)

        found: jax.Array = unsharded(solve, g, g)
        return found * length(h, reading)

    def rule(h: Hyperparameters, g: jax.Array, _: Any, mu: jax.Array) -> Any:
        b1 = getattr(h, decay)
        mu = b1 * mu + (1 - b1) * g
        ahead = b1 * mu + (1 - b1) * g if momentum == "nesterov" else mu
        return direction(h, ahead), mu

    averages = momentum != "none"
    return leafwise(
        name,
        rule if averages else lambda h, g, _: direction(h, g),
        ScaleByAveragedLmoState if averages else ScaleByLmoState,
        (None,) if averages else (),
        hyperparameters,
        plan=readings(norms, rules, stacked, name),
        stacked=stacked,
        needs_params=False,
    )


def scale_by_lmo(
    norms: Norms = "spectral",
    *,
    momentum: Momentum = "none",
    b1: jax.typing.ArrayLike = 0.95,
    method: Method = "newton_schulz",
    steps: int = 5,
    by_dual_norm: bool = False,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""The direction of steepest descent under a norm, for each leaf its own.

    .. math::
      \mathrm{lmo}(G) = \arg\max_{\|T\| = 1} \langle G, T \rangle

    ascent-signed, as every direction: of norm 1, whatever the size of the gradient. The
    norms are those of :mod:`gnomon.optimizers.matrix.dual_norms`, by name:

    ==================  ============================================================
    ``"spectral"``      :math:`\sqrt{m / n}\, U V^\top` of a kernel with n inputs and
                        m outputs; ``"spectral_max"`` with
                        :math:`\sqrt{\max(1, m / n)}`, ``"orthogonal"`` with 1
    ``"sign"``          :math:`\mathrm{sign}(G) / n`; ``"max"`` without :math:`n`
    ``"unit"``          each output's weights over :math:`\sqrt n` times their norm
    ``"input"``         each input's weights over their root mean square;
                        ``"input_mean"`` with another :math:`1 / n`
    ``"frobenius"``     :math:`G / |G|_F`
    ==================  ============================================================

    A bias or a gain is the matrix of one input, the constant 1, so that its
    ``"spectral"`` and ``"input"`` directions are :math:`b / \mathrm{rms}(b)`. An
    embedding's rows are its inputs. A zero gradient has no direction and stays zero.

    Without averages ``"max"`` is sign descent, the limit of Adam at
    :math:`\beta_1 = \beta_2 = 0`, and ``"orthogonal"`` is Shampoo; the average with
    ``"orthogonal"`` is Muon.

    Args:
      norms: the name of a norm for all leaves, default ``"spectral"``; or names by role
        (see `gnomon.parameters.roles`): leaves of other roles pass as they are.
      momentum: of what it is the direction: ``"none"``, the default, the gradient;
        ``"average"``, :math:`m \leftarrow \beta_1 m + (1 - \beta_1) g`;
        ``"nesterov"``, :math:`\beta_1 m + (1 - \beta_1) g` once more.
      b1: :math:`\beta_1` of the average, default 0.95.
      method: how polar factors are found: ``"newton_schulz"``, the default, with the
        steep coefficients of Muon, which put singular values between 0.68 and 1.14;
        ``"polar_express"``, nearer for as many steps; ``"svd"``, exact, slow on
        accelerators.
      steps: of either iteration, a whole number, default 5.
      by_dual_norm: whether the direction is multiplied by the dual norm
        :math:`\langle G, \mathrm{lmo}(G) \rangle`, which makes it the steepest descent
        :math:`\arg\max \langle G, T \rangle - \|T\|^2 / 2`. Default False.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has a
        direction of its own.

    Returns:
      The transform. It needs no ``params``.

    Raises:
      ValueError: if a norm, a role, ``momentum`` or ``method`` is unknown, or a number
        is out of range.

    Example:
      >>> g = {"kernel": jnp.array([[3.0, 0.0], [0.0, -0.5]]), "bias": jnp.ones(2)}
      >>> for norm in ("orthogonal", "sign", "unit"):
      ...     direction = scale_by_lmo(norm, method="svd")
      ...     u, _ = direction.update(g, direction.init(g))
      ...     print(jnp.round(u["kernel"].ravel(), 2))
      [ 1.  0.  0. -1.]
      [ 0.5  0.   0.  -0.5]
      [ 0.71  0.    0.   -0.71]

    References:
      Bernstein & Newhouse, `Old Optimizer, New Norm: An Anthology
      <https://arxiv.org/abs/2409.20325>`_, 2024

    Differences:
      The paper's text was not read; the norms are those of its authors' code and of
      Scion's, as noted. A convolution is known by a kernel of four axes or more; one
      over a sequence, with three, is read as a matrix. The factor
      :math:`\langle G, \mathrm{lmo}(G) \rangle` is the dual norm to the accuracy of
      the polar factor.
    """
    return oracle(
        "scale_by_lmo",
        norms,
        {"[0, 1)": dict(b1=b1)},
        lambda h, reading: 1,
        momentum=momentum,
        decay="b1",
        method=method,
        steps=steps,
        by_dual_norm=by_dual_norm,
        rules=rules,
        stacked=stacked,
    )
