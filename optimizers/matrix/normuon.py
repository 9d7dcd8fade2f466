"""NorMuon: Muon whose output units have one size."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.matrix.beside_adam import beside_adam
from gnomon.optimizers.matrix.dual_norms import Method, polar_factor
from gnomon.optimizers.mechanisms.descent import descend
from gnomon.optimizers.mechanisms.leafwise import WIDE, leafwise
from gnomon.optimizers.mechanisms.sets import norm_plan
from gnomon.parameters.checks import ScalarOrSchedule, require_choice, require_within
from gnomon.parameters.matrices import matrices_in, of_matrices, unsharded
from gnomon.parameters.select import Where
from gnomon.parameters.trees import compute_dtype, map_leaves, safe_divide
from gnomon.parameters.units import Axes, Rules, unit_norm

__all__ = [
    "NorMuonState",
    "ScaleByNeuronRmsState",
    "normuon",
    "scale_by_neuron_rms",
]

Keep: TypeAlias = Literal["norm", "rms"]
RECOMMENDED = {
    "normuon": dict(
        learning_rate=3e-3,
        momentum=0.95,
        b2=0.95,
        weight_decay=0.01,
        keep="rms",
        adam_b1=0.9,
        adam_b2=0.99,
    )
}


class ScaleByNeuronRmsState(NamedTuple):
    """State of :func:`scale_by_neuron_rms`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    nu: optax.Updates  # mean square of each unit, in float32 or wider


class NorMuonState(NamedTuple):
    """State of the direction of :func:`normuon`."""

    count: jax.Array  # type: ignore[assignment]  # updates made
    mu: optax.Updates  # first moment, in mu_dtype or the dtype of the parameters
    nu: optax.Updates  # mean square of each unit, Adam's second moment elsewhere


def scale_by_neuron_rms(
    b2: jax.typing.ArrayLike = 0.95,
    eps: jax.typing.ArrayLike = 1e-10,
    *,
    keep: Keep = "norm",
    rms: jax.typing.ArrayLike = 0.2,
    constrained: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Gives the output units of a direction one size, over time.

    With :math:`o_j` the part of the direction that belongs to unit :math:`j`, of
    :math:`n` numbers,

    .. math::
      v_j \leftarrow \beta_2 v_j + (1 - \beta_2) |o_j|^2 / n, \qquad
      \hat o_j = o_j / (\sqrt{v_j} + \epsilon), \qquad
      o \leftarrow c\, \hat o / |\hat o|

    with :math:`c` the former norm of the leaf, or a root mean square times the root of
    its size. It stands behind any direction, and before the learning rate.

    Args:
      b2: :math:`\beta_2`, default 0.95; :math:`v` is not corrected for its start.
      eps: :math:`\epsilon`, default 1e-10.
      keep: ``"norm"``, the default, as the authors' code; ``"rms"``, as the paper.
      rms: the root mean square that is kept, default 0.2, about that of Adam.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default every leaf that has units.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer keeps a
        norm of its own.

    Returns:
      The transform. It needs ``params`` in ``update``, for their dtypes.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``keep`` is unknown, or ``constrained`` matches no leaf.

    Example:
      >>> level, u = scale_by_neuron_rms(), jnp.array([[3.0, 0.1], [4.0, 0.0]])
      >>> found, _ = level.update(u, level.init(u), u)
      >>> print(jnp.linalg.norm(u, axis=0), jnp.linalg.norm(found, axis=0).round(2))
      [5.  0.1] [3.54 3.54]

    References:
      Li et al., `NorMuon: Making Muon more efficient and scalable
      <https://arxiv.org/abs/2510.05491>`_, 2025

    Differences:
      A unit is one output, whatever the kernel's axes. The authors' code gives
      convolutions back their four axes first, and takes means over the width of the
      kernel alone.
    """
    require_choice("keep", keep, Keep)
    plan = norm_plan(constrained, "unit", rules, stacked)

    def initial(params: Any) -> tuple[Any]:
        def square(w: jax.Array, axes: Axes | None) -> tuple[jax.Array]:
            zeros = jnp.zeros_like(w, dtype=compute_dtype(w.dtype))
            if axes is None:
                return (jnp.zeros((1,), zeros.dtype),)
            return (_mean_square(zeros, axes),)

        return map_leaves(square, params, (), plan(params))

    def rule(
        h: Any, u: jax.Array, _: jax.Array, nu: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        return _leveled(u, nu, h.b2, h.eps, h.rms if keep == "rms" else None, h.axes)

    return leafwise(
        "scale_by_neuron_rms",
        rule,
        ScaleByNeuronRmsState,
        (WIDE,),
        {"[0, 1)": dict(b2=b2), "[0, inf)": dict(eps=eps, rms=rms)},
        plan=plan,
        initial=initial,
        stacked=stacked,
    )


def normuon(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: ScalarOrSchedule = 0.95,
    b2: jax.typing.ArrayLike = 0.95,
    eps: jax.typing.ArrayLike = 1e-10,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    keep: Keep = "norm",
    rms: jax.typing.ArrayLike = 0.2,
    method: Method = "newton_schulz",
    steps: int = 5,
    adam_b1: jax.typing.ArrayLike = 0.9,
    adam_b2: jax.typing.ArrayLike = 0.95,
    adam_eps: jax.typing.ArrayLike = 1e-10,
    adam_scale: jax.typing.ArrayLike = 1.0,
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""NorMuon: the polar factor of the momentum, with output units of one size.

    On hidden matrices,

    .. math::
      m &\leftarrow \mu m + (1 - \mu) g, \qquad
      U \Sigma V^\top = \mu m + (1 - \mu) g \\
      o &= \text{the direction } U V^\top \text{ with units of one size} \\
      w &\leftarrow w - \eta \left( \sqrt{\max(1, n_{out} / n_{in})}\, o
        + \lambda w \right)

    with :func:`scale_by_neuron_rms` in the middle; with ``keep="rms"`` there is no
    factor of the shape. All other leaves have the step of Adam, at the same rate.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule. With
        ``keep="norm"`` about 0.02 for a transformer, with ``"rms"`` about that of Adam.
      momentum: :math:`\mu`, a scalar or a schedule, default 0.95.
      b2: decay of the units' mean squares, default 0.95.
      eps: added to their roots, default 1e-10.
      weight_decay: weight decay :math:`\lambda`, a scalar or a schedule, default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      keep: what each matrix keeps, its ``"norm"``, the default, or an ``"rms"``.
      rms: that root mean square, default 0.2.
      method: how polar factors are found, ``"newton_schulz"``, the default,
        ``"polar_express"`` or ``"svd"``, see :func:`scale_by_lmo`.
      steps: of that iteration, a whole number, default 5.
      adam_b1: Adam's decay of the first moment, default 0.9.
      adam_b2: Adam's decay of the second moment, default 0.95.
      adam_eps: Adam's epsilon, default 1e-10.
      adam_scale: Adam's rate in units of the learning rate, default 1.
      matrices: the leaves that are hidden matrices: a regex found in the path, or a
        mask (a tree of bools, a prefix, or a function of the parameters); default by
        their roles, see `gnomon.parameters.roles`.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer is a
        matrix of its own.
      mu_dtype: dtype of the first moment, default that of the parameters.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``keep`` or ``method`` is unknown, or ``matrices`` matches no leaf.

    Example:
      >>> optimizer = normuon(0.1, method="svd")
      >>> w = {"kernel": jnp.array([[1.0, 0.0], [0.0, 2.0]]), "bias": jnp.ones(2)}
      >>> updates, _ = optimizer.update(w, optimizer.init(w), w)
      >>> print(updates["kernel"].round(3) + 0, updates["bias"].round(3))
      [[-0.1  0. ]
       [ 0.  -0.1]] [-0.1 -0.1]

    References:
      Li et al., `NorMuon: Making Muon more efficient and scalable
      <https://arxiv.org/abs/2510.05491>`_, 2025

    Differences:
      The paper's text was not read; the rule is that of notes on it and of its authors'
      code. That code finds polar factors in bfloat16, and treats convolutions as
      :func:`scale_by_neuron_rms` says. `optax.contrib.muon` corrects the momentum for
      its start, which is not done here.
    """
    require_choice("keep", keep, Keep)
    require_choice("method", method, Method)
    require_within("[1, inf)", steps=steps, whole=True)
    factor = polar_factor(method, steps)

    def rule(
        h: Any, g: jax.Array, _: jax.Array, mu: jax.Array, nu: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        axes = h.axes.axes
        mu = h.momentum * mu + (1 - h.momentum) * g

        def orthogonal(x: jax.Array) -> jax.Array:
            return of_matrices(factor(matrices_in(x, axes)), axes, x.shape)

        ahead = h.momentum * mu + (1 - h.momentum) * g
        o, nu = _leveled(
            unsharded(orthogonal, ahead, ahead),
            *(nu, h.b2, h.eps, h.rms if keep == "rms" else None, axes),
        )
        return o if keep == "rms" else _widened(o, axes), mu, nu

    numbers: dict[str, dict[str, Any]] = {
        "[0, 1)": dict(momentum=momentum, b2=b2),
        "[0, inf)": dict(eps=eps, rms=rms),
    }
    direction = beside_adam(
        "normuon",
        rule,
        NorMuonState,
        lambda zeros, axes: (_mean_square(zeros, axes),),
        numbers,
        slots=1,
        adam=dict(b1=adam_b1, b2=adam_b2, eps=adam_eps, scale=adam_scale),
        matrices=matrices,
        rules=rules,
        stacked=stacked,
        mu_dtype=mu_dtype,
    )
    last = descend(
        learning_rate,
        weight_decay,
        weight_decay_mask=weight_decay_mask,
        stacked=stacked,
        name="normuon",
    )
    return optax.chain(direction, last)


def _mean_square(x: jax.Array, axes: Axes) -> jax.Array:
    count = math.prod(x.shape[axis] for axis in axes.reduce)
    return jnp.sum(jnp.square(x), axes.reduce, keepdims=True) / max(count, 1)


def _leveled(
    o: jax.Array,
    nu: jax.Array,
    b2: jax.Array,
    eps: jax.Array,
    rms: jax.Array | None,
    axes: Axes,
) -> tuple[jax.Array, jax.Array]:
    """The direction with units of one size, and their new mean squares."""
    nu = b2 * nu + (1 - b2) * _mean_square(o, axes)
    layer = axes.layer(o.ndim)
    # What a traced b2 above 1 makes negative has no root.
    leveled = safe_divide(o, jnp.sqrt(jnp.maximum(nu, 0)) + eps)
    if rms is None:
        kept = unit_norm(o, layer)
    else:
        kept = rms * math.sqrt(math.prod(o.shape[axis] for axis in layer.reduce))
    return leveled * safe_divide(kept, unit_norm(leveled, layer)), nu


def _widened(o: jax.Array, axes: Axes) -> jax.Array:
    """Times the root of outputs over inputs, where there are more."""
    inputs = math.prod(o.shape[axis] for axis in axes.reduce)
    all_of_layer = math.prod(o.shape[axis] for axis in axes.layer(o.ndim).reduce)
    outputs = all_of_layer / max(inputs, 1)
    return o * math.sqrt(max(1.0, outputs / max(inputs, 1)))
