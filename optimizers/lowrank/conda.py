"""Conda: Adam in the singular basis of the first moment."""

from typing import Any, NamedTuple

import jax
import optax

from gnomon.optimizers.lowrank.bases import Name, Side
from gnomon.optimizers.lowrank.choices import ADAM, NO_RESIDUAL, PERIODIC, rotate_first
from gnomon.optimizers.lowrank.subspace import subspace
from gnomon.optimizers.mechanisms.descent import descend
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules

__all__ = ["ScaleByCondaState", "conda"]

RECOMMENDED = {
    "conda": dict(learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, every=2000)
}


class ScaleByCondaState(NamedTuple):
    """State of :func:`scale_by_conda`, in float32 or wider."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment in the basis, [layers, side, other side]
    nu: optax.Updates  # second moment in the basis, likewise
    basis: Any  # [layers, side, side]; a zero for Adam's leaves


def scale_by_conda(
    b1: ScalarOrSchedule = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    scale: jax.typing.ArrayLike = 1.0,
    every: jax.typing.ArrayLike = 2000,
    basis: Name = "svd",
    side: Side = "smaller",
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`conda`, ascent-signed and before the learning rate.

    Args:
      b1: decay of the first moment, a scalar or a schedule.
      b2: decay of the second moment.
      eps: added to its root.
      scale: factor of the steps of matrices.
      every: updates between two bases.
      basis: how a basis is found.
      side: the side that has the basis.
      matrices: the leaves that have one.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It needs ``params`` in ``update``, for their dtypes.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or a choice is unknown.
    """
    return subspace(
        "conda",
        ScaleByCondaState,
        ADAM,
        basis=basis,
        refresh=PERIODIC,
        transport=rotate_first,
        residual=NO_RESIDUAL,
        every=every,
        rank=None,
        side=side,
        of_moment=True,
        numbers={
            "[0, 1)": dict(b1=b1, b2=b2),
            "[0, inf)": dict(eps=eps, scale=scale),
        },
        matrices=matrices,
        rules=rules,
        stacked=stacked,
    )


def conda(
    learning_rate: ScalarOrSchedule,
    *,
    b1: ScalarOrSchedule = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    scale: jax.typing.ArrayLike = 1.0,
    every: jax.typing.ArrayLike = 2000,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    basis: Name = "svd",
    side: Side = "smaller",
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Conda, column-normalized Adam: Adam in the singular basis of the first moment.

    On a hidden matrix with gradient :math:`G`, [n, m] with :math:`n \le m`,

    .. math::
      M &\leftarrow \beta_1 M + (1 - \beta_1) G, \qquad
      V \leftarrow \beta_2 V + (1 - \beta_2) (U^\top G)^2 \\
      W &\leftarrow W - \eta \left( s\, U\, \frac{U^\top M / (1 - \beta_1^t)}
        {\sqrt{V / (1 - \beta_2^t)} + \epsilon} + \lambda W \right)

    with all left singular vectors :math:`U` of :math:`M`, found at the first update and
    at every 2000th after it. Then M is turned into the new basis, and V keeps its
    numbers. With the identity for a basis it is Adam, and so are the steps of all
    leaves that are no hidden matrices. All is computed in float32 or wider.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      b1: :math:`\beta_1`, a scalar or a schedule, default 0.9.
      b2: :math:`\beta_2`, default 0.999.
      eps: :math:`\epsilon`, default 1e-8.
      scale: :math:`s`, default 1.
      every: updates between two bases, default 2000.
      weight_decay: weight decay :math:`\lambda`, a scalar or a schedule, default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      basis: ``"svd"``, the default; ``"dct"``, the discrete cosine transform of the
        side; ``"rows"``, the identity.
      side: the side that has the basis, as of :func:`galore`, default ``"smaller"``. A
        longer side is projected to the rank of the matrix.
      matrices: the leaves that have a basis: a regex found in the path, or a mask (a
        tree of bools, a prefix, or a function of the parameters); default the hidden
        matrices by their roles, see `gnomon.parameters.roles`.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has a
        basis of its own.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, a choice is unknown, or ``matrices`` matches no leaf.

    Example:
      In its own basis the first gradient has one row, and the step is of its signs:

      >>> import jax.numpy as jnp
      >>> w = {"kernel": jnp.array([[0.6, -1.2], [0.8, -1.6]])}
      >>> optimizer = conda(0.1, eps=1e-4)
      >>> updates, _ = optimizer.update(w, optimizer.init(w), w)
      >>> print(updates["kernel"].round(2))
      [[-0.06  0.06]
       [-0.08  0.08]]

    References:
      Wang et al., `Conda: Column-Normalized Adam for Training Large Language Models
      Faster <https://arxiv.org/abs/2509.24218>`_, 2025

    Differences:
      The paper's text was not read; the rule is that of a maintained port of its code,
      which divides before the bias corrections, so that epsilon counts for more in the
      first steps. There M is kept as it is and turned at every update; here it is kept
      in the basis and turned at a refresh, which is the same with a full basis.
    """
    direction = scale_by_conda(
        b1,
        b2,
        eps,
        scale=scale,
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
        name="conda",
    )
    return optax.chain(direction, last)
