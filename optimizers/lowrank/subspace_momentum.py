"""Subspace-Momentum: momentum in a few directions, plain gradients in the others."""

from typing import Any, NamedTuple

import jax
import optax

from gnomon.optimizers.lowrank.bases import Name, Side
from gnomon.optimizers.lowrank.choices import AVERAGE, PERIODIC, SGD, reset
from gnomon.optimizers.lowrank.subspace import subspace
from gnomon.optimizers.mechanisms.descent import descend
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules

__all__ = [
    "ScaleBySubspaceMomentumState",
    "subspace_momentum",
]

RECOMMENDED = {"subspace_momentum": dict(learning_rate=0.1, rank=16, b1=0.9, every=200)}


class ScaleBySubspaceMomentumState(NamedTuple):
    """State of :func:`scale_by_subspace_momentum`, in float32 or wider."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # momentum, [layers, rank, other side]; of other leaves, theirs
    basis: Any  # [layers, side, rank]; of a fixed one the numbers, [layers, rank]


def scale_by_subspace_momentum(
    b1: ScalarOrSchedule = 0.9,
    *,
    rank: int | None,
    every: jax.typing.ArrayLike = 200,
    basis: Name = "svd",
    side: Side = "smaller",
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`subspace_momentum`, ascent-signed, before the rate.

    Args:
      b1: decay of the momentum, a scalar or a schedule.
      rank: vectors of a basis; None for all of the shorter side.
      every: updates between two bases.
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
    return subspace(
        "subspace_momentum",
        ScaleBySubspaceMomentumState,
        AVERAGE,
        basis=basis,
        refresh=PERIODIC,
        transport=reset,
        residual=SGD,
        every=every,
        rank=rank,
        side=side,
        numbers={
            "[0, 1)": dict(b1=b1),
            "[0, inf)": dict(scale=1.0),
        },
        matrices=matrices,
        rules=rules,
        stacked=stacked,
    )


def subspace_momentum(
    learning_rate: ScalarOrSchedule,
    *,
    rank: int | None,
    b1: ScalarOrSchedule = 0.9,
    every: jax.typing.ArrayLike = 200,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    basis: Name = "svd",
    side: Side = "smaller",
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum in the subspace of a few directions, gradient descent in the others.

    On a hidden matrix with gradient :math:`G` and GaLore's basis :math:`P`, see
    :func:`galore`,

    .. math::
      M &\leftarrow \beta_1 M + (1 - \beta_1) P^\top G \\
      W &\leftarrow W - \eta\, (P M + (G - P P^\top G) + \lambda W)

    At a refresh M starts at zero. At full rank it is momentum, as a moving average and
    without a bias correction, and so are the steps of all other leaves; with
    :math:`\beta_1 = 0` it is gradient descent, whatever the basis.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      rank: vectors of a basis; None for all of the shorter side.
      b1: :math:`\beta_1`, a scalar or a schedule, default 0.9.
      every: updates between two bases, default 200.
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
      The direction with the larger gradient has momentum, the other has none:

      >>> import jax.numpy as jnp
      >>> w = {"kernel": jnp.array([[3.0, 0.0], [0.0, 1.0]])}
      >>> optimizer = subspace_momentum(1.0, rank=1, b1=0.5)
      >>> updates, _ = optimizer.update(w, optimizer.init(w), w)
      >>> print(updates["kernel"])
      [[-1.5 -0. ]
       [-0.  -1. ]]

    References:
      Nguyen & Nguyen, `Efficient Adaptive Optimization via Subset-Norm and
      Subspace-Momentum: Fast, Memory-Reduced Training with Convergence Guarantees
      <https://arxiv.org/abs/2411.07120>`_, 2024

    Differences:
      The paper's text was not read; the rule is that of the authors' code, with two
      differences. There the momentum of before a refresh is used once more in the new
      basis, and the gradient of that step does not enter it; and its bias factor
      multiplies the rest of the gradient, too. Here there is none. Its division by
      subset norms is left out: they are of the whole gradient, see
      :func:`scale_by_subset_norm`.
    """
    direction = scale_by_subspace_momentum(
        b1,
        rank=rank,
        every=every,
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
        name="subspace_momentum",
    )
    return optax.chain(direction, last)
