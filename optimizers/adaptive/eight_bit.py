"""AdamW and AdamP whose moments take two bytes a parameter, with fused kernels."""

import jax
import optax

from gnomon import kernels
from gnomon.kernels.adam_8bit import explain
from gnomon.kernels.companding import BLOCK
from gnomon.optimizers.mechanisms.quantized import quantize_moments
from gnomon.optimizers.norms.adamp import adamp
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.units import Rules

__all__ = ["adamp_8bit", "adamw_8bit"]

ADAM = dict(learning_rate=3e-3, b1=0.9, b2=0.99, eps=1e-8, weight_decay=0.01)
# Moments in eight bits, of every leaf of min_size numbers or more.
RECOMMENDED = {
    "adamw_8bit": dict(
        name="gnomon.optimizers.quantize_moments",
        inner=dict(name="optax.adamw", **ADAM),
        min_size=4096,
    ),
    "adamp_8bit": dict(
        name="gnomon.optimizers.quantize_moments",
        inner=dict(name="gnomon.optimizers.adamp", **ADAM, delta=0.1, wd_ratio=0.1),
        min_size=4096,
    ),
}


def adamp_8bit(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    delta: jax.typing.ArrayLike = 0.1,
    wd_ratio: jax.typing.ArrayLike = 0.1,
    nesterov: bool = False,
    rules: Rules | None = None,
    stacked: str | None = None,
    min_size: int = 4096,
    block: int = BLOCK,
    stochastic: bool = True,
    implementation: kernels.Implementation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """``quantize_moments(adamp(...))``, in one call.

    Args:
      learning_rate: step size, a scalar or a schedule.
      b1: see :func:`gnomon.optimizers.adamp`, as all arguments up to ``stacked``.
      b2: decay of the second moment.
      eps: added to the denominator, and guard of the norms.
      weight_decay: decoupled weight decay, a scalar or a schedule.
      weight_decay_mask: which leaves decay.
      delta: threshold of the gradient test.
      wd_ratio: factor on weight decay where the test passed.
      nesterov: look ahead by one step of momentum.
      rules: ordered ``(regex, axes)`` pairs.
      stacked: regex of the leaves that stack layers along axis 0.
      min_size: see :func:`gnomon.optimizers.quantize_moments`, as the two below.
      block: numbers that share one scale.
      stochastic: round the moments at random.
      implementation: how ``apply`` runs, ``"xla"``, ``"tpu"`` or ``"gpu"``; default the
        kernel where it is known to be faster, see :mod:`gnomon.kernels`.

    Returns:
      The optimizer. It needs ``params``, and ``apply`` reads ``shardings`` and
      ``rounding_key`` as that of :func:`gnomon.optimizers.adamp` does.

    Raises:
      ValueError: as :func:`gnomon.optimizers.adamp`, or if ``implementation`` cannot
        run.

    Example:
      >>> import jax.numpy as jnp
      >>> from gnomon.optimizers import apply_fused
      >>> w = {"kernel": jnp.ones((64, 64))}
      >>> optimizer = adamp_8bit(0.1)
      >>> w, state = apply_fused(optimizer, w, optimizer.init(w), w)
      >>> print(w["kernel"][0, 0], state.inner[0].mu["kernel"].dtype)
      0.9 int8
    """
    explain(block=block, implementation=implementation)  # refuses what cannot run
    return quantize_moments(
        adamp(
            learning_rate,
            b1=b1,
            b2=b2,
            eps=eps,
            weight_decay=weight_decay,
            weight_decay_mask=weight_decay_mask,
            delta=delta,
            wd_ratio=wd_ratio,
            nesterov=nesterov,
            rules=rules,
            stacked=stacked,
            implementation=implementation,
        ),
        min_size=min_size,
        block=block,
        stochastic=stochastic,
        stacked=stacked,
    )


def adamw_8bit(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    nesterov: bool = False,
    stacked: str | None = None,
    min_size: int = 4096,
    block: int = BLOCK,
    stochastic: bool = True,
    implementation: kernels.Implementation | None = None,
) -> optax.GradientTransformationExtraArgs:
    """AdamW with its moments in eight bits and a fused step.

    It is :func:`adamp_8bit` where no leaf has units, so that nothing is projected.

    Args:
      learning_rate: step size, a scalar or a schedule.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to the denominator after bias correction, default 1e-8.
      weight_decay: decoupled weight decay per learning rate, a scalar or a schedule,
        default 0.
      weight_decay_mask: which leaves decay, default all.
      nesterov: look ahead by one step of momentum.
      stacked: regex of the leaves that stack layers along axis 0.
      min_size: see :func:`gnomon.optimizers.quantize_moments`, as the two below.
      block: numbers that share one scale.
      stochastic: round the moments at random.
      implementation: see :func:`adamp_8bit`.

    Returns:
      The optimizer.

    Raises:
      ValueError: as :func:`adamp_8bit`.

    Example:
      >>> import jax.numpy as jnp
      >>> w = {"kernel": jnp.ones((64, 64))}
      >>> optimizer = adamw_8bit(0.1, weight_decay=0.5)
      >>> updates, state = optimizer.update(w, optimizer.init(w), w)
      >>> print(f"{updates['kernel'][0, 0]:.2f}")  # -0.1 (1 + 0.5)
      -0.15
    """
    return adamp_8bit(
        learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
        nesterov=nesterov,
        rules=((".*", ()),),
        stacked=stacked,
        min_size=min_size,
        block=block,
        stochastic=stochastic,
        implementation=implementation,
    )
