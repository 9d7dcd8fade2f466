"""Fira: GaLore, and the rest of the gradient at the pace of the subspace."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.lowrank.bases import Name, Side
from gnomon.optimizers.lowrank.choices import ADAM, PERIODIC, Arrays, Residual, keep
from gnomon.optimizers.lowrank.subspace import subspace
from gnomon.optimizers.mechanisms.descent import descend
from gnomon.optimizers.mechanisms.diagnostics import largest_of, tells
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.select import Where
from gnomon.parameters.trees import safe_divide
from gnomon.parameters.units import Rules

__all__ = ["ScaleByFiraState", "fira"]

RECOMMENDED = {
    "fira": dict(
        learning_rate=1e-2, rank=16, b1=0.9, b2=0.999, eps=1e-6, every=200, scale=0.25
    )
}


@tells(
    "residual_norm",
    "longest step outside of a subspace, before the rate",
    lambda state: largest_of(state.norm),
)
class ScaleByFiraState(NamedTuple):
    """State of :func:`scale_by_fira`, in float32 or wider.

    A leaf that is not projected has its moments as Adam has, and a zero in place of
    what follows.
    """

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, [layers, rank, other side]
    nu: optax.Updates  # second moment, likewise
    basis: Any  # [layers, side, rank]; of a fixed one the numbers, [layers, rank]
    norm: Any  # of the last residual, as it was limited, [layers]


def scale_by_fira(
    b1: ScalarOrSchedule = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-6,
    *,
    rank: int | None,
    scale: jax.typing.ArrayLike = 0.25,
    gamma: jax.typing.ArrayLike = 1.01,
    every: jax.typing.ArrayLike = 200,
    published: bool = False,
    basis: Name = "svd",
    side: Side = "smaller",
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`fira`, ascent-signed and before the learning rate.

    Args:
      b1: decay of the first moment, a scalar or a schedule.
      b2: decay of the second moment.
      eps: added to its root.
      rank: vectors of a basis; None for all of the shorter side.
      scale: factor of the steps inside of the subspace.
      gamma: largest growth of the residual a step.
      every: updates between two bases.
      published: whether the residual is that of the authors' code.
      basis: how a basis is found.
      side: the side that is projected.
      matrices: the leaves that are projected.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It needs ``params`` in ``update``, for their dtypes.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or a choice is unknown.
    """

    def residual(
        n: Any,
        t: jax.Array,
        g: jax.Array,
        inside: jax.Array,
        coordinates: jax.Array,
        direction: jax.Array,
        last: jax.Array,
    ) -> Arrays:
        pace = safe_divide(_norm(direction, 1), _norm(coordinates, 1))
        rest = pace * (g - (n.scale * inside if published else inside))
        norm = _norm(rest, (1, 2))
        if published:  # limited before the bias corrections
            corrected = jnp.sqrt(jnp.maximum(1 - n.b2**t, 0))
            norm = safe_divide(norm * (1 - n.b1**t), corrected)
        bound = n.gamma * last[:, None, None]
        grows = (bound > 0) & (norm > bound)
        by = jnp.where(grows, safe_divide(bound, norm), 1)
        return rest * by, (norm * by)[:, 0, 0]

    return subspace(
        "fira",
        ScaleByFiraState,
        ADAM,
        basis=basis,
        refresh=PERIODIC,
        transport=keep,
        residual=Residual(lambda layers: (jnp.zeros(layers),), residual),
        every=every,
        rank=rank,
        side=side,
        numbers={
            "[0, 1)": dict(b1=b1, b2=b2),
            "[0, inf)": dict(eps=eps, scale=scale),
            "[1, inf]": dict(gamma=gamma),
        },
        matrices=matrices,
        rules=rules,
        stacked=stacked,
    )


def fira(
    learning_rate: ScalarOrSchedule,
    *,
    rank: int | None,
    b1: ScalarOrSchedule = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-6,
    scale: jax.typing.ArrayLike = 0.25,
    gamma: jax.typing.ArrayLike = 1.01,
    every: jax.typing.ArrayLike = 200,
    published: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    basis: Name = "svd",
    side: Side = "smaller",
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Fira: GaLore's steps, and the rest of the gradient at the pace of the subspace.

    On a hidden matrix with gradient :math:`G`, GaLore's basis :math:`P`, the
    coordinates :math:`R = P^\top G` and Adam's direction :math:`\Psi` on them, a column
    j of each,

    .. math::
      S_j &= \frac{\|\Psi_j\|}{\|R_j\|}\, (G - P R)_j \\
      S &\leftarrow S \min\Big(1, \gamma \frac{\|S_{t-1}\|}{\|S\|}\Big) \\
      W &\leftarrow W - \eta\, (s\, P\, \Psi + S + \lambda W)

    with the last residual :math:`S_{t-1}` as it was used. The first one passes, and so
    does one after a zero. Moments live in the subspace alone, and the weights move in
    all directions. At full rank there is no residual. Other leaves are Adam's, as in
    :func:`galore`.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      rank: vectors of a basis; None for all of the shorter side.
      b1: decay of the first moment, a scalar or a schedule, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to its root, default 1e-6.
      scale: :math:`s`, default 0.25.
      gamma: :math:`\gamma`, at least 1, default 1.01.
      every: updates between two bases, default 200.
      published: whether the residual is that of the authors' code, default False: they
        take :math:`G - s P R` for the rest, and limit it before Adam's bias
        corrections, so that it counts for half during some ten steps.
      weight_decay: weight decay :math:`\lambda`, a scalar or a schedule, default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      basis: how a basis is found, as of :func:`galore`.
      side: the side that is projected, as of :func:`galore`.
      matrices: the leaves that are projected: a regex found in the path, or a mask (a
        tree of bools, a prefix, or a function of the parameters); default the hidden
        matrices by their roles, see `gnomon.parameters.roles`.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The optimizer. It needs ``params`` in ``update``. ``observed`` tells the share of
      the squared gradients that the subspaces hold, ``captured``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, a choice is unknown, or ``matrices`` matches no leaf.

    Example:
      Adam's first step has a size of one, a third of the gradient that it is of; so
      has the rest:

      >>> w = {"kernel": jnp.array([[3.0, 3.0], [1.0, -1.0]])}
      >>> optimizer = fira(0.1, rank=1, scale=1.0)
      >>> updates, _ = optimizer.update(w, optimizer.init(w), w)
      >>> print(updates["kernel"].round(3))
      [[-0.1   -0.1  ]
       [-0.033  0.033]]

    References:
      Chen et al., `Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
      Constraint? <https://arxiv.org/abs/2410.01623>`_, 2024

    Differences:
      The paper's text was not read; the rule is that of the authors' code and of a
      maintained port of it, but for what ``published`` brings back. These add 1e-8 to
      the norms that they divide by, and divide by the root of the second moment before
      the bias corrections, so that epsilon counts for more in the first steps.
    """
    direction = scale_by_fira(
        b1,
        b2,
        eps,
        rank=rank,
        scale=scale,
        gamma=gamma,
        every=every,
        published=published,
        basis=basis,
        side=side,
        matrices=matrices,
        rules=rules,
        stacked=stacked,
    )
    last = descend(
        learning_rate,
        weight_decay,
        weight_decay_mask=weight_decay_mask,
        stacked=stacked,
        name="fira",
    )
    return optax.chain(direction, last)


def _norm(x: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(x), axis, keepdims=True))
