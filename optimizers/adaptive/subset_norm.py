"""Subset-Norm: one second moment for each subset of a leaf's numbers."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.descent import Decay, descend
from gnomon.optimizers.mechanisms.diagnostics import mean_of, tells
from gnomon.optimizers.mechanisms.leafwise import WIDE, leafwise
from gnomon.parameters.checks import ScalarOrSchedule, require_choice
from gnomon.parameters.trees import compute_dtype, safe_divide
from gnomon.parameters.units import Axes, Rules, resolve_axes

__all__ = ["ScaleBySubsetNormState", "scale_by_subset_norm", "subset_norm"]

RECOMMENDED = {
    "subset_norm": dict(
        learning_rate=0.03, b1=0.9, b2=0.99, eps=1e-6, weight_decay=0.01
    )
}
Shape = Literal["unit", "input", "smaller", "root"]


@tells(
    "second_moment",
    "mean of the averaged squared norms of subsets",
    lambda state: mean_of(state.nu),
)
class ScaleBySubsetNormState(NamedTuple):
    """State of :func:`scale_by_subset_norm`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, in mu_dtype or the dtype of the parameters
    nu: optax.Updates  # one second moment a subset, in float32 or wider


def _axes_of(subset: str, axes: Axes, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that a subset spans, of the leaf as it is stored."""
    if not axes.reduce:
        return ()
    kept = {*axes.reduce, *axes.stack}
    outputs = tuple(axis for axis in range(len(shape)) if axis not in kept)
    fan_in, fan_out = (math.prod(shape[a] for a in x) for x in (axes.reduce, outputs))
    by_input = subset == "input" or (subset == "smaller" and fan_out < fan_in)
    return outputs if by_input else axes.reduce


def _length(subset: str | int, numbers: int) -> int:
    """How many numbers in a row are a subset of a layer of so many."""
    wanted = math.isqrt(numbers) // 2 if isinstance(subset, str) else subset
    below = range(max(min(wanted, numbers), 1), 0, -1)
    return next(k for k in below if numbers % k == 0)


def _sums(x: jax.Array, subset: str | int, axes: Axes) -> jax.Array:
    """The sum over each subset, shaped to broadcast, or in rows."""
    if isinstance(subset, str) and subset != "root":
        return jnp.sum(x, axis=_axes_of(subset, axes, x.shape), keepdims=True)
    layers = tuple(x.shape[axis] for axis in axes.stack)
    length = _length(subset, x.size // max(math.prod(layers), 1)) if x.size else 1
    return jnp.sum(x.reshape(*layers, -1, length) if x.size else x, axis=-1)


def _divide(x: jax.Array, by: jax.Array, subset: str | int, axes: Axes) -> jax.Array:
    if isinstance(subset, str) and subset != "root":
        return safe_divide(x, by)
    if not x.size:
        return x
    rows = safe_divide(x.reshape(*by.shape, -1), by[..., None])
    return rows.reshape(x.shape)


def scale_by_subset_norm(
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-6,
    *,
    subset: Shape | int = "unit",
    rules: Rules | None = None,
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`subset_norm`, ascent-signed, before the learning rate.

    Args:
      b1: see :func:`subset_norm`, as all arguments.
      b2: decay of the second moments.
      eps: added to their roots.
      subset: what a subset is.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.
      mu_dtype: dtype of the first moment.

    Returns:
      The transform. It needs ``params`` in ``update``, for their dtypes.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out
        of range, or ``subset`` is unknown.
    """
    if isinstance(subset, str):
        require_choice("subset", subset, Shape)
    elif isinstance(subset, bool) or not isinstance(subset, int) or subset < 1:
        raise ValueError(f"subset={subset!r} is no name and no whole number from 1.")

    def initial(params: Any) -> tuple[Any, Any]:
        zeros = jax.tree.map(
            lambda w: jnp.zeros_like(w, dtype=compute_dtype(w.dtype)), params
        )
        axes = resolve_axes(params, rules, stacked)
        return zeros, jax.tree.map(lambda x, a: _sums(x, subset, a), zeros, axes)

    def rule(
        h: Any, g: jax.Array, w: jax.Array, mu: jax.Array, nu: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        mu = h.b1 * mu + (1 - h.b1) * g
        square = _sums(jnp.square(g), subset, h.axes)
        adds = h.b2 == 1  # a sum, as AdaGrad's, which needs no correction
        nu = h.b2 * nu + jnp.where(adds, 1, 1 - h.b2) * square
        whole = jnp.where(adds, 1, 1 - h.b2**h.t)
        # What a traced b2 above 1 makes negative has no root.
        root = jnp.sqrt(jnp.maximum(safe_divide(nu, whole), 0)) + h.eps
        return _divide(safe_divide(mu, 1 - h.b1**h.t), root, subset, h.axes), mu, nu

    return leafwise(
        "subset_norm",
        rule,
        ScaleBySubsetNormState,
        (mu_dtype, WIDE),
        {"[0, 1)": dict(b1=b1), "[0, 1]": dict(b2=b2), "[0, inf)": dict(eps=eps)},
        rules=rules,
        stacked=stacked,
        initial=initial,
    )


def subset_norm(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    decay: Decay = "scaled",
    subset: Shape | int = "unit",
    rules: Rules | None = None,
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Subset-Norm: Adam whose second moments are shared by subsets of a leaf.

    For subsets :math:`I` of a leaf's numbers

    .. math::
      m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
      v_I \leftarrow \beta_2 v_I + (1 - \beta_2) \sum_{i \in I} g_i^2 \\
      w_i &\leftarrow (1 - \eta \lambda) w_i - \eta\, \frac{m_i}{1 - \beta_1^t} \Big/
        \Big(\sqrt{v_I / (1 - \beta_2^t)} + \epsilon\Big)

    It is a sum and no mean: a step on a subset has about the norm :math:`\eta`, so that
    the learning rate is larger than Adam's by the root of a subset's size. With
    :math:`\beta_2 = 1` the squares are added up, without a correction: AdaGrad for
    subsets of one, AdaGrad-Norm of a leaf for one subset.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moments, default 0.999; 1 for sums.
      eps: added to their roots, default 1e-6.
      weight_decay: decoupled weight decay :math:`\lambda`, a scalar or a schedule,
        default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      decay: the convention of weight decay, ``"scaled"`` as above, ``"independent"``
        of the learning rate, or ``"cautious"``, see
        :func:`gnomon.optimizers.descend`.
      subset: an output ``"unit"``, the default; an ``"input"``, all that leaves it; the
        ``"smaller"`` of both sides, so that there are as few second moments as
        possible; ``"root"``, numbers that follow each other, the largest divisor of the
        size up to half of its root; or so many that follow each other, or the largest
        divisor below. Leaves without units are subsets of one number under the first
        three, which also leave shards where they are.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; no subset has numbers
        of two layers.
      mu_dtype: dtype of the first moment, default that of the parameters. The second is
        kept in float32 or wider.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or ``subset`` or ``decay`` is unknown.

    Example:
      One second moment for each of the two units:

      >>> optimizer, w = subset_norm(1.0), jnp.ones((2, 2))
      >>> g = jnp.array([[3.0, 0.0], [4.0, 9.0]])
      >>> updates, state = optimizer.update(g, optimizer.init(w), w)
      >>> print(updates.round(3), state[0].nu.shape)
      [[-0.6 -0. ]
       [-0.8 -1. ]] (1, 2)

    References:
      Nguyen and Nguyen, `Efficient Adaptive Optimization via Subset-Norm and
      Subspace-Momentum <https://arxiv.org/abs/2411.07120>`_, 2024

    Differences:
      The authors' code adds :math:`\epsilon` before the bias corrections, gives Adam's
      own second moments to all but linear layers, and with :math:`\beta_2 = 1` and its
      default correction never moves. Its default subset is ``"root"`` without the half;
      its heuristics are ``"smaller"``.
    """
    return optax.chain(
        scale_by_subset_norm(
            b1,
            b2,
            eps,
            subset=subset,
            rules=rules,
            stacked=stacked,
            mu_dtype=mu_dtype,
        ),
        descend(
            learning_rate,
            weight_decay,
            weight_decay_mask=weight_decay_mask,
            decay=decay,
            stacked=stacked,
            name="subset_norm",
        ),
    )
