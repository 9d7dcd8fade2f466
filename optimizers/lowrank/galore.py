"""GaLore: Adam on gradients projected to a few directions."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.lowrank.bases import Name, Side
from gnomon.optimizers.lowrank.choices import ADAM, NO_RESIDUAL, keep, lazy, rotate
from gnomon.optimizers.lowrank.subspace import subspace
from gnomon.optimizers.mechanisms.descent import descend
from gnomon.optimizers.mechanisms.diagnostics import largest_of, tells
from gnomon.parameters.checks import ScalarOrSchedule, require_choice
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules

__all__ = ["ScaleByGaloreState", "galore"]

_NAME = "gnomon.optimizers.galore"
_GALORE: dict[str, Any] = dict(
    learning_rate=1e-2, rank=16, b1=0.9, b2=0.999, eps=1e-6, every=200, scale=0.25
)
RECOMMENDED = {
    "galore": _GALORE,
    "q_galore": dict(_GALORE, name=_NAME, lazy_above=0.4),
    "dct_adamw": dict(
        _GALORE,
        name=_NAME,
        learning_rate=1e-3,
        eps=1e-8,
        every=1,
        scale=1.0,
        basis="dct",
        transport="rotate",
    ),
    "grad_norm_lorp": dict(
        name="gnomon.optimizers.weight_norm",
        inner=dict(_GALORE, name=_NAME, learning_rate=1e-3, scale=1.0),
        eps=1e-8,
    ),
}
Transport = Literal["keep", "rotate"]


@tells(
    "stretch",
    "largest factor by which the interval between two bases has grown",
    lambda state: largest_of(state.stretch),
)
class ScaleByGaloreState(NamedTuple):
    """State of :func:`scale_by_galore`, in float32 or wider.

    A leaf that is not projected has its moments as Adam has, and zeros of one number in
    place of what follows.
    """

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, [layers, rank, other side]
    nu: optax.Updates  # second moment, likewise
    basis: Any  # [layers, side, rank]; of a fixed one the numbers, [layers, rank]
    age: Any  # updates since the last basis, [layers]
    stretch: Any  # factor of the interval to the next one, [layers]
    cosines: Any  # of the first vectors of the last ones, [layers, 5]; -1 before


def scale_by_galore(
    b1: ScalarOrSchedule = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-6,
    *,
    rank: int | None,
    scale: jax.typing.ArrayLike = 0.25,
    every: jax.typing.ArrayLike = 200,
    lazy_above: jax.typing.ArrayLike = jnp.inf,
    basis: Name = "svd",
    side: Side = "smaller",
    transport: Transport = "keep",
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`galore`, ascent-signed and before the learning rate.

    Args:
      b1: decay of the first moment, a scalar or a schedule.
      b2: decay of the second moment.
      eps: added to its root.
      rank: vectors of a basis; None for all of the shorter side.
      scale: factor of the steps of projected matrices.
      every: updates between two bases.
      lazy_above: mean cosine from which on the interval doubles.
      basis: how a basis is found.
      side: the side that is projected.
      transport: what becomes of the moments in a new basis.
      matrices: the leaves that are projected.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It needs ``params`` in ``update``, for their dtypes.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or a choice is unknown.
    """
    require_choice("transport", transport, Transport)
    return subspace(
        "galore",
        ScaleByGaloreState,
        ADAM,
        basis=basis,
        refresh=lazy(),
        transport=keep if transport == "keep" else rotate,
        residual=NO_RESIDUAL,
        every=every,
        rank=rank,
        side=side,
        numbers={
            "[0, 1)": dict(b1=b1, b2=b2),
            "[0, inf)": dict(eps=eps, scale=scale),
            "[0, inf]": dict(lazy_above=lazy_above),
        },
        matrices=matrices,
        rules=rules,
        stacked=stacked,
    )


def galore(
    learning_rate: ScalarOrSchedule,
    *,
    rank: int | None,
    b1: ScalarOrSchedule = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-6,
    scale: jax.typing.ArrayLike = 0.25,
    every: jax.typing.ArrayLike = 200,
    lazy_above: jax.typing.ArrayLike = jnp.inf,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    basis: Name = "svd",
    side: Side = "smaller",
    transport: Transport = "keep",
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""GaLore: Adam on gradients that are projected to a subspace of few directions.

    On a hidden matrix with gradient :math:`G`, [n, m] with :math:`n \le m`, and the
    first :math:`r` left singular vectors :math:`P`, [n, r], of an earlier gradient,

    .. math::
      R &= P^\top G, \qquad
      M \leftarrow \beta_1 M + (1 - \beta_1) R, \qquad
      V \leftarrow \beta_2 V + (1 - \beta_2) R^2 \\
      W &\leftarrow W - \eta \left( s\, P\, \frac{M / (1 - \beta_1^t)}
        {\sqrt{V / (1 - \beta_2^t)} + \epsilon} + \lambda W \right)

    Both moments are [r, m], and the basis is computed of the gradient of the first
    update and of every 200th after it. In a new basis the moments keep their numbers.
    All is computed in float32 or wider, whatever the dtype of the weights. All other
    leaves, and matrices whose shorter side is not longer than the rank, are Adam's,
    without the factor :math:`s`.

    Q-GaLore asks less often where the subspace has settled: ``lazy_above=0.4`` doubles
    the interval of a layer at each refresh where the mean of the last five cosines
    between its successive first vectors is 0.4 or more.

    DCT-AdamW is ``galore(1e-3, rank=r, every=1, scale=1.0, basis="dct",
    transport="rotate")``: moments follow their frequencies, and those of a frequency
    that was not in the last basis start at zero. GradNormLoRP is
    ``weight_norm(galore(1e-3, rank=r, scale=1.0))``: directions are projected, the
    scales of the units are Adam's.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      rank: vectors r of a basis; None for all of the shorter side.
      b1: :math:`\beta_1`, a scalar or a schedule, default 0.9.
      b2: :math:`\beta_2`, default 0.999.
      eps: :math:`\epsilon`, default 1e-6.
      scale: :math:`s`, default 0.25.
      every: updates between two bases, default 200.
      lazy_above: mean cosine from which on the interval doubles, default infinity: it
        never does.
      weight_decay: weight decay :math:`\lambda`, a scalar or a schedule, default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      basis: ``"svd"``, the default; ``"dct"``, of the discrete cosine transform of the
        side the frequencies with the largest absolute sums; ``"rows"``, the rows of G
        with these. The last two keep r numbers alone, and need no decomposition.
      side: the side that is projected: ``"smaller"``, the default (the inputs, of a
        square matrix); ``"larger"``, with smaller moments and a larger basis;
        ``"inputs"``; ``"outputs"``.
      transport: ``"keep"``, the default, or ``"rotate"``: in the new basis
        :math:`M' = T M` and :math:`V' = T^2 V`, with the entries squared, and
        :math:`T = P'^\top P`.
      matrices: the leaves that are projected: a regex found in the path, or a mask (a
        tree of bools, a prefix, or a function of the parameters); default the hidden
        matrices by their roles, see `gnomon.parameters.roles`.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has a
        basis of its own.

    Returns:
      The optimizer. It needs ``params`` in ``update``. ``observed`` tells the share of
      the squared gradients that the subspaces hold, ``captured``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, a choice is unknown, or ``matrices`` matches no leaf.

    Example:
      Of two directions the one with the larger gradient is kept:

      >>> w = {"kernel": jnp.array([[3.0, 0.0], [0.0, 1.0]])}
      >>> optimizer = galore(0.1, rank=1, scale=1.0)
      >>> state = optimizer.init(w)
      >>> updates, state = optimizer.update(w, state, w)
      >>> print(updates["kernel"].round(3) + 0)
      [[-0.1  0. ]
       [ 0.   0. ]]
      >>> print(state[0].mu["kernel"].shape, state[0].basis["kernel"].shape)
      (1, 1, 2) (1, 2, 1)

    References:
      Zhao et al., `GaLore: Memory-Efficient LLM Training by Gradient Low-Rank
      Projection <https://arxiv.org/abs/2403.03507>`_, 2024
      Zhang et al., `Q-GaLore: Quantized GaLore with INT4 Projection and Layer-Adaptive
      Low-Rank Gradients <https://arxiv.org/abs/2407.08296>`_, 2024
      Modoranu et al., `SVD-Free Low-Rank Adaptive Gradient Optimization for Large
      Language Models <https://arxiv.org/abs/2505.17967>`_, 2025
      Huang et al., `Gradient Weight-normalized Low-rank Projection for Efficient LLM
      Training <https://arxiv.org/abs/2412.19616>`_, 2024

    Differences:
      The papers' texts were not read; the rule is that of their authors' code and of a
      maintained port of it, which divide before the bias corrections, so that epsilon
      counts for more in the first steps. There singular vectors have the signs that the
      decomposition gives; here the largest entry of each is positive, since moments
      that keep their numbers would meet a change of sign. Of Q-GaLore the lazy refresh
      alone is here, not its quantization of weights and bases; its cosines have a sign
      in its code, and it looks whether the count is a multiple of the changed interval,
      where here the interval counts from the last refresh. ``optax.contrib.galore``
      projects the longer side, this one's ``side="larger"``. DCT-AdamW's code can leave
      moments in their places while the frequencies change, its default, and can feed
      back what the projection left out; neither is here. GradNormLoRP's code takes for
      the gradient of a direction that of the weight, the part along it included, and
      sets scale and direction anew from the weight at every step, so that what the
      scale learned lasts one forward pass; :func:`weight_norm` does neither.
    """
    direction = scale_by_galore(
        b1,
        b2,
        eps,
        rank=rank,
        scale=scale,
        every=every,
        lazy_above=lazy_above,
        basis=basis,
        side=side,
        transport=transport,
        matrices=matrices,
        rules=rules,
        stacked=stacked,
    )
    last = descend(
        learning_rate,
        weight_decay,
        weight_decay_mask=weight_decay_mask,
        stacked=stacked,
        name="galore",
    )
    return optax.chain(direction, last)
