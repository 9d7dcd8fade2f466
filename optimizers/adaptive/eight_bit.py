"""AdamW and AdamP whose moments take two bytes a parameter, with fused kernels."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding, PartitionSpec

from gnomon import kernels
from gnomon.kernels import adamp as adamp_kernel
from gnomon.kernels import adamp_8bit as adamp_8bit_kernel
from gnomon.kernels.adam_8bit import explain
from gnomon.kernels.companding import BLOCK, Coded
from gnomon.optimizers.mechanisms.fused import (
    FusedTransformation,
    kept,
    leaf_keys,
    leaf_shardings,
)
from gnomon.optimizers.mechanisms.quantized import (
    QuantizeMomentsState,
    quantize_moments,
)
from gnomon.optimizers.norms.adamp import ScaleByAdamPState, adamp
from gnomon.parameters.checks import ScalarOrSchedule, at_step, require_params
from gnomon.parameters.trees import broadcast_mask, map_leaves
from gnomon.parameters.units import Rules, resolve_axes

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
) -> FusedTransformation:
    """``quantize_moments(adamp(...))`` with a fused step.

    In its ``apply``, see :func:`gnomon.optimizers.apply_fused`, one kernel reads a
    leaf's codes, moves its parameter and writes the new codes. Before it XLA finds the
    sums of the test and of the projection, which may decode a leaf into memory.

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
    unfused = quantize_moments(
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
        ),
        min_size=min_size,
        block=block,
        stochastic=stochastic,
        stacked=stacked,
    )

    def apply_fn(
        grads, state, params, *, shardings=None, rounding_key=None, **extra_args
    ):
        del extra_args
        require_params(params, "adamp_8bit")
        scaling, descent = state.inner
        scales, none = state.scales
        count = optax.safe_increment(scaling.count)
        rate = at_step("learning_rate", learning_rate, descent.count)
        decay = at_step("weight_decay", weight_decay, scaling.count)

        def rule(
            grad, mu, nu, mu_scale, nu_scale, param, axes, layers, decays, key, sharding
        ):
            kwargs: dict[str, Any] = dict(
                learning_rate=rate,
                count=count,
                b1=b1,
                b2=b2,
                eps=eps,
                weight_decay=decay if decays else 0.0,
                delta=delta,
                wd_ratio=wd_ratio,
                reduce=axes.reduce,
                stack=axes.stack,
                nesterov=nesterov,
                key=key,
                sharding=sharding,
                implementation=implementation,
                fall_back=True,
            )
            if mu.dtype != "int8":
                moved = adamp_kernel.step(param, grad, mu, nu, **kwargs)
                return *moved, mu_scale, nu_scale
            arrays = param, grad, Coded(mu, mu_scale), Coded(nu, nu_scale)
            how = kwargs | dict(stochastic=stochastic, block=block)
            w, m, v = _by_layer(arrays, len(layers.stack), how)
            return w, m.codes, v.codes, m.scales, v.scales

        moved, mu, nu, mu_scales, nu_scales = map_leaves(
            rule,
            grads,
            (scaling.mu, scaling.nu, scales.mu, scales.nu),
            params,
            resolve_axes(params, rules, stacked),
            resolve_axes(params, stacked=stacked),  # a rule cannot move these
            broadcast_mask(weight_decay_mask, params, stacked),
            leaf_keys(rounding_key, params),
            leaf_shardings(shardings, params),
        )
        descent = descent._replace(count=optax.safe_increment(descent.count))
        return kept(moved, params), QuantizeMomentsState(
            optax.safe_increment(state.count),
            (ScaleByAdamPState(count, mu, nu), descent),
            (scales._replace(mu=mu_scales, nu=nu_scales), none),
        )

    return FusedTransformation(unfused, apply_fn)


def _by_layer(arrays: Any, depth: int, how: dict[str, Any]) -> Any:
    """The step of every layer of a stack: its blocks and its draws are its own."""
    if not depth:
        return adamp_8bit_kernel.step(*arrays, **how)
    sharding = how["sharding"]
    inside = how | dict(
        reduce=tuple(axis - 1 for axis in how["reduce"]),
        stack=tuple(axis - 1 for axis in how["stack"] if axis),
    )
    if sharding is not None:
        rest = PartitionSpec(*sharding.spec[1:])
        inside["sharding"] = NamedSharding(sharding.mesh, rest)

    def layer(numbered):
        index, parts = numbered
        key = how["key"]
        if key is not None:
            key = jax.random.fold_in(key, index)
        return _by_layer(parts, depth - 1, inside | dict(key=key))

    return jax.lax.map(layer, (jnp.arange(arrays[0].shape[0]), arrays))


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
) -> FusedTransformation:
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
