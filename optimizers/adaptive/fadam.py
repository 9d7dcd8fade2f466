"""FAdam: Adam read as natural gradient descent with a diagonal empirical Fisher."""

from typing import Any, NamedTuple

import jax
import optax

from gnomon import kernels
from gnomon.kernels.fadam import explain, step
from gnomon.kernels.fadam.program import (
    ClipRule,
    EpsRule,
    Options,
    direction,
    scalars,
)
from gnomon.optimizers.mechanisms.descent import descending
from gnomon.optimizers.mechanisms.fused import FusedTransformation
from gnomon.optimizers.mechanisms.leafwise import (
    WIDE,
    Hyperparameters,
    Leafwise,
    leafwise,
)
from gnomon.parameters.checks import ScalarOrSchedule, require_choice

__all__ = ["ScaleByFAdamState", "fadam", "scale_by_fadam"]

RECOMMENDED = {
    "fadam": dict(
        learning_rate=3e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.1, clip=1.0
    )
}


class ScaleByFAdamState(NamedTuple):
    """State of :func:`scale_by_fadam`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # momentum of the clipped natural gradient, in mu_dtype
    # Root of the Fisher information (the bias-corrected average of g^2), in float32 or
    # wider; kept as a root because every pass over a leaf needs that.
    root: optax.Updates


def scale_by_fadam(
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    weight_decay: ScalarOrSchedule = 0.1,
    weight_decay_mask: optax.MaskOrFn | None = None,
    clip: jax.typing.ArrayLike = 1.0,
    p: jax.typing.ArrayLike = 0.5,
    eps_rule: EpsRule = "min",
    eps_to_2p: bool = True,
    clip_rule: ClipRule = "threshold",
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> Leafwise:
    """The direction of :func:`fadam`, ascent-signed and before the learning rate.

    Weight decay is part of it because it is preconditioned and clipped as the gradient
    is.

    Args:
      b1: see :func:`fadam`, as all arguments.
      b2: decay of the Fisher information.
      eps: added to the denominator, relative to the gradient's size.
      weight_decay: rate of weight decay, a scalar or a schedule.
      weight_decay_mask: which leaves decay.
      clip: largest RMS of the natural gradient and of the decay.
      p: power of the Fisher information.
      eps_rule: how the gradient's size bounds ``eps``.
      eps_to_2p: raise the bounded ``eps`` to the power ``2 p``.
      clip_rule: what ``clip`` does.
      stacked: regex of the leaves that stack layers along axis 0.
      mu_dtype: dtype of the momentum.

    Returns:
      The transform. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, a flag is unknown, or ``stacked`` matches no leaf.
    """
    require_choice("eps_rule", eps_rule, EpsRule)
    require_choice("clip_rule", clip_rule, ClipRule)

    def rule(
        h: Hyperparameters, g: jax.Array, w: jax.Array, mu: jax.Array, root: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        s = scalars(g.dtype, learning_rate=0.0, count=h.t, **h.numbers)
        options = Options(eps_rule, eps_to_2p, clip_rule, h.decays)
        return direction(g, w, mu, root, s, options, h.axes.layer(w.ndim).reduce)

    return leafwise(
        "fadam",
        rule,
        ScaleByFAdamState,
        (WIDE if mu_dtype is None else mu_dtype, WIDE),
        {
            # At 1, without bias correction, decay alone.
            "[0, 1]": dict(b1=b1, p=p),
            "[0, 1)": dict(b2=b2),
            "[0, inf)": dict(eps=eps, weight_decay=weight_decay),
            "(0, inf]" if clip_rule == "threshold" else "(0, inf)": dict(clip=clip),
        },
        weight_decay_mask=weight_decay_mask,
        stacked=stacked,
    )


def fadam(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: ScalarOrSchedule = 0.1,
    weight_decay_mask: optax.MaskOrFn | None = None,
    clip: jax.typing.ArrayLike = 1.0,
    p: jax.typing.ArrayLike = 0.5,
    eps_rule: EpsRule = "min",
    eps_to_2p: bool = True,
    clip_rule: ClipRule = "threshold",
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
    implementation: kernels.Implementation | None = None,
) -> FusedTransformation:
    r"""FAdam: momentum of a clipped natural gradient, with decay under the same metric.

    .. math::
      \hat\beta_2 &= \beta_2 (1 - \beta_2^{t-1}) / (1 - \beta_2^t), \qquad
      f \leftarrow \hat\beta_2 f + (1 - \hat\beta_2) g^2 \\
      \hat\epsilon &= \epsilon \min(1, \operatorname{RMS}(g)), \qquad
      D = f^p + \hat\epsilon^{2p} \\
      n &= \operatorname{clip}(g / D), \qquad h = \operatorname{clip}(w / D), \qquad
      \operatorname{clip}(x) = x / \max(1, \operatorname{RMS}(x) / c) \\
      m &\leftarrow \beta_1 m + (1 - \beta_1) n, \qquad
      w \leftarrow w - \eta\, (m + \lambda h)

    :math:`f` is the diagonal empirical Fisher information, equal to Adam's
    bias-corrected second moment, and RMS is over one leaf. The momentum is not bias
    corrected: the first step is :math:`(1 - \beta_1) \eta\, \operatorname{sign}(g)`, a
    tenth of Adam's. Where :math:`D = 0` (no gradient has been seen) :math:`n` and
    :math:`h` are zero.

    Weight decay is not AdamW's. Since :math:`w / D` is nearly always clipped, it moves
    a leaf by :math:`\eta \lambda c` in RMS however small or large the weights are, most
    where gradients are small; useful :math:`\lambda` lie around 1e-3 to 1e-1.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      b1: decay of the momentum, default 0.9.
      b2: decay of the Fisher information, default 0.999.
      eps: added to the root of the Fisher information, relative to the gradient's RMS
        while that is below 1, default 1e-8.
      weight_decay: rate :math:`\lambda`, a scalar or a schedule, default 0.1.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      clip: largest RMS :math:`c` of :math:`n` and of :math:`h`, default 1; ``jnp.inf``
        does not clip.
      p: power of the Fisher information, default 1/2; at 1 the natural gradient.
      eps_rule: ``"min"`` as above, or ``"max"`` for
        :math:`\hat\epsilon = \epsilon \max(1, \operatorname{RMS}(g))`, default
        ``"min"``.
      eps_to_2p: add :math:`\hat\epsilon^{2p}`, or :math:`\hat\epsilon` itself if False;
        the same at :math:`p = 1/2`. Default True.
      clip_rule: ``"threshold"`` as above, or ``"scale"`` for
        :math:`c\, x / \max(1, \operatorname{RMS}(x))`, which rescales what is below the
        threshold too; the same at :math:`c = 1`. Default ``"threshold"``.
      stacked: regex of the leaves that stack layers along axis 0 (scanned layers); RMS
        is then over each layer.
      mu_dtype: dtype of the momentum, default float32 or wider.
      implementation: how ``apply`` runs, ``"xla"``, ``"tpu"`` or ``"gpu"``; default the
        kernel where it is known to be faster, see :mod:`gnomon.kernels`.

    Returns:
      The optimizer. It needs ``params`` in ``update``, and has the fused entry point of
      :func:`gnomon.optimizers.apply_fused`, which reads ``shardings`` and
      ``rounding_key`` as :func:`gnomon.optimizers.adamp`'s does.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, a flag is unknown, ``stacked`` matches no leaf, or ``implementation``
        cannot run.

    Example:
      Without weight decay the units of the loss do not matter, even when it is a
      millionth:

      >>> import jax, jax.numpy as jnp, optax
      >>> @jax.jit
      ... def minimize(units):
      ...     loss = lambda w: units * jnp.sum((w - jnp.array([1.0, -2.0])) ** 2)
      ...     optimizer = fadam(0.05, weight_decay=0.0)
      ...     def step(_, carry):
      ...         w, state = carry
      ...         updates, state = optimizer.update(jax.grad(loss)(w), state, w)
      ...         return optax.apply_updates(w, updates), state
      ...     w = jnp.zeros(2)
      ...     return jax.lax.fori_loop(0, 200, step, (w, optimizer.init(w)))[0]
      >>> print(minimize(0.1).round(2), minimize(1e-7).round(2))
      [ 1. -2.] [ 1. -2.]

    References:
      Hwang, `FAdam: Adam is a natural gradient optimizer using diagonal empirical
      Fisher information <https://arxiv.org/abs/2405.12807>`_, 2024

    Differences:
      The PyTorch port FAdam_PyTorch has :math:`\max` in place of :math:`\min` since
      July 2025, against the NaN of a leaf whose first gradient is all zero; that makes
      the step depend on the units of the loss, so here the guard at :math:`D = 0`
      serves instead and its rule is ``eps_rule="max"``. It also adds
      :math:`\hat\epsilon` unraised, ``eps_to_2p=False``, and divides by
      :math:`\max(1, \operatorname{RMS}(x)) / c`, ``clip_rule="scale"``.
    """
    scaling = scale_by_fadam(
        b1,
        b2,
        eps,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
        clip=clip,
        p=p,
        eps_rule=eps_rule,
        eps_to_2p=eps_to_2p,
        clip_rule=clip_rule,
        stacked=stacked,
        mu_dtype=mu_dtype,
    )

    def kernel(
        h: Hyperparameters,
        g: jax.Array,
        w: jax.Array,
        mu: jax.Array,
        root: jax.Array,
        **how: Any,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        return step(
            w,
            g,
            mu,
            root,
            decays=h.decays,
            eps_rule=eps_rule,
            eps_to_2p=eps_to_2p,
            clip_rule=clip_rule,
            stack=h.axes.stack,
            **h.numbers,
            **how,
        )

    return descending("fadam", scaling, learning_rate, kernel, explain, implementation)
