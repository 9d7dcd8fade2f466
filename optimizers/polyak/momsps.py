"""MomSPS: heavy-ball SGD with the stochastic Polyak step size."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.optimizers.polyak.step_size import (
    excess,
    grown,
    heavy_ball,
    polyak_step,
    require_value,
    tells_step_size,
)
from gnomon.parameters.checks import (
    ScalarOrSchedule,
    at_step,
    require_choice,
    require_within,
)
from gnomon.parameters.products import inner_product, scalar_dtype

__all__ = ["MomSpsState", "momsps"]

RECOMMENDED = {"momsps": dict(variant="smooth", momentum=0.9, c=0.4, n_batches=256.0)}

Variant = Literal["max", "smooth"]


@tells_step_size
class MomSpsState(NamedTuple):
    """State of :func:`momsps`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    step_size: jax.Array  # of the last update, with its factor 1 - momentum, shape=()
    last_positive: jax.Array  # the last step size above 0, which smoothing grows from
    velocity: optax.Updates  # the last update, in the dtype of the parameters


def momsps(
    max_learning_rate: ScalarOrSchedule | None = None,
    *,
    variant: Variant = "max",
    momentum: jax.typing.ArrayLike = 0.9,
    c: jax.typing.ArrayLike = 1.0,
    f_min: ScalarOrSchedule = 0.0,
    init_step_size: jax.typing.ArrayLike = 1.0,
    growth: jax.typing.ArrayLike = 2.0,
    n_batches: jax.typing.ArrayLike = 256,
) -> optax.GradientTransformationExtraArgs:
    r"""MomSPS: heavy ball whose Polyak step size is corrected for the momentum.

    .. math::
      \gamma_t &= (1 - \beta) \min\Big\{\frac{(f - f^*)_+}{c \|g\|^2},\
        \gamma_{\max}\Big\} \\
      w &\leftarrow w - \gamma_t\, g + \beta\, (w_t - w_{t-1})

    An effective step of heavy ball is :math:`1 / (1 - \beta)` times longer than its
    step size, hence the factor; without it the method diverges already on convex
    problems. Variant ``'smooth'`` also bounds :math:`\gamma_t` by :math:`\tau^{1/n}
    \gamma_{t-1}`, so that it grows by at most the factor :math:`\tau` in an epoch of
    :math:`n` steps. See :mod:`gnomon.optimizers.polyak` for what the family has in
    common.

    Args:
      max_learning_rate: :math:`\gamma_{\max}`, a scalar or a schedule; default 10 for
        ``'max'``, no bound for ``'smooth'``.
      variant: ``'max'`` (default) or ``'smooth'``.
      momentum: :math:`\beta`, default 0.9.
      c: caution factor, default 1; 0.4 in the paper's networks, with ``'smooth'``.
      f_min: :math:`f^*`, a scalar or a schedule, default 0.
      init_step_size: :math:`\gamma_0` of ``'smooth'``, default 1.
      growth: :math:`\tau` of ``'smooth'``, default 2.
      n_batches: steps an epoch :math:`n` of ``'smooth'``, default 256.

    Returns:
      The optimizer. It needs the extra arg ``value`` in ``update``; its state is a
      :class:`MomSpsState`.

    Raises:
      ValueError: if ``value`` is missing, a hyperparameter is not one number or out of
        range, or the variant is unknown.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> optimizer = momsps(momentum=0.5)
      >>> w = jnp.array([1.0, 2.0, 3.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     value, grad = jax.value_and_grad(loss)(w)
      ...     updates, state = optimizer.update(grad, state, w, value=value)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"loss {loss(w):.4f}, step size {state.step_size:.3f}")
      loss 7.8750, step size 0.125
      loss 2.6797, step size 0.125
      loss 0.4136, step size 0.125

    References:
      Oikonomou & Loizou, `Stochastic Polyak Step-sizes and Momentum: Convergence
      Guarantees and Practical Performance <https://arxiv.org/abs/2406.04142>`_, 2025

    Differences:
      The authors' code has :math:`f^* = 0` and divides by zero at a zero gradient. As
      in :func:`gnomon.optimizers.sps`, smoothing grows from the last positive step
      size.
    """
    require_choice("variant", variant, Variant)
    if max_learning_rate is None:
        max_learning_rate = 10.0 if variant == "max" else math.inf
    require_within("[0, inf]", max_learning_rate=max_learning_rate)
    require_within("[0, 1)", momentum=momentum)
    require_within("(0, inf)", c=c, growth=growth, n_batches=n_batches)
    require_within("(-inf, inf)", f_min=f_min)
    require_within("(0, inf]", init_step_size=init_step_size)

    def init_fn(params: optax.Params) -> MomSpsState:
        dtype = scalar_dtype(params)
        return MomSpsState(
            count=jnp.zeros([], jnp.int32),
            step_size=jnp.zeros([], dtype),
            last_positive=jnp.asarray(init_step_size, dtype),
            velocity=optax.tree.zeros_like(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: MomSpsState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MomSpsState]:
        del params, extra_args
        require_value(value, "momsps")
        dtype = state.step_size.dtype
        square = inner_product(updates, updates).astype(dtype)
        step_size = (1 - jnp.asarray(momentum, dtype)) * polyak_step(
            excess(value, f_min, state.count, dtype),
            jnp.asarray(c, dtype) * square,
            at_step("max_learning_rate", max_learning_rate, state.count),
        )
        if variant == "smooth":
            bound = grown(state.last_positive, growth, n_batches)
            step_size = jnp.minimum(step_size, bound)
        updates, velocity = heavy_ball(step_size, momentum, updates, state.velocity)
        return updates, MomSpsState(
            count=optax.safe_increment(state.count),
            step_size=step_size,
            last_positive=jnp.where(step_size > 0, step_size, state.last_positive),
            velocity=velocity,
        )

    return transformation("momsps", init_fn, update_fn)
