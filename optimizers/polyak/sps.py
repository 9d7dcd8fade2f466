"""SPS: SGD with the stochastic Polyak step size."""

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.optimizers.polyak.step_size import (
    against,
    excess,
    grown,
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

__all__ = ["SpsState", "sps"]

# The step size comes from the loss: the bound is what is left to tune.
RECOMMENDED = {
    "sps": dict(variant="smooth", max_learning_rate=1.0, c=0.5, n_batches=500.0)
}

Variant = Literal["constant", "smooth", "plus"]


@tells_step_size
class SpsState(NamedTuple):
    """State of :func:`sps`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    step_size: jax.Array  # of the last update, shape=()
    last_positive: jax.Array  # the last step size above 0, which smoothing grows from


def sps(
    max_learning_rate: ScalarOrSchedule = math.inf,
    *,
    variant: Variant = "constant",
    f_min: ScalarOrSchedule = 0.0,
    c: jax.typing.ArrayLike | None = None,
    eps: jax.typing.ArrayLike = 0.0,
    init_step_size: jax.typing.ArrayLike = 1.0,
    growth: jax.typing.ArrayLike = 2.0,
    n_batches: jax.typing.ArrayLike = 500,
) -> optax.GradientTransformationExtraArgs:
    r"""SPS: SGD whose step size closes the gap between the loss and its minimum.

    .. math::
      \gamma_t = \min\Big\{\frac{(f - f^*)_+}{c \|g\|^2 + \epsilon},\ b_t\Big\},
      \qquad w \leftarrow w - \gamma_t\, g

    with the bound :math:`b_t` of the variant:

    - ``'constant'`` (SPS_max): :math:`\gamma_{\max}`.
    - ``'smooth'``: :math:`\min\{\gamma_{\max},\ \tau^{1/n} \gamma_{t-1}\}`, so that a
      step size grows by at most the factor :math:`\tau` in an epoch of :math:`n` steps.
    - ``'plus'`` (SPS+): :math:`\gamma_{\max}`, and :math:`c = 1`. Here ``f_min`` is the
      loss at the solution instead of a lower bound of the loss.

    See :mod:`gnomon.optimizers.polyak` for what the family has in common.

    Args:
      max_learning_rate: upper bound :math:`\gamma_{\max}` of the step size, a scalar or
        a schedule, default no bound. On other than convex, interpolated problems a
        bound is needed.
      variant: ``'constant'`` (default), ``'smooth'`` or ``'plus'``.
      f_min: :math:`f^*`, a scalar or a schedule, default 0.
      c: caution factor, default 0.5, and larger for shorter steps. Not for ``'plus'``.
      eps: :math:`\epsilon`, default 0; a zero gradient gives a zero step in any case.
      init_step_size: :math:`\gamma_0` of ``'smooth'``, default 1.
      growth: :math:`\tau` of ``'smooth'``, default 2.
      n_batches: steps an epoch :math:`n` of ``'smooth'``, default 500.

    Returns:
      The optimizer. It needs the extra arg ``value`` in ``update``; its state is a
      :class:`SpsState`.

    Raises:
      ValueError: if ``value`` is missing, a hyperparameter is not one number or out of
        range, the variant is unknown, or ``c`` is given to ``'plus'``.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> optimizer = sps(c=1.0)
      >>> w = jnp.array([1.0, 2.0, 3.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     value, grad = jax.value_and_grad(loss)(w)
      ...     updates, state = optimizer.update(grad, state, w, value=value)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"loss {loss(w):.5f}, step size {state.step_size:.2f}")
      loss 3.50000, step size 0.25
      loss 0.87500, step size 0.25
      loss 0.21875, step size 0.25

    References:
      Loizou et al., `Stochastic Polyak Step-size for SGD: An Adaptive Learning Rate for
      Fast Convergence <https://arxiv.org/abs/2002.10542>`_, 2021

      Garrigos et al., `Function Value Learning: Adaptive Learning Rates Based on the
      Polyak Stepsize and Function Splitting in ERM
      <https://arxiv.org/abs/2307.14528>`_, 2023 (SPS+)

    Differences:
      The authors' code adds 1e-8 to the denominator (``eps``), takes a gradient below
      norm 1e-8 for zero, and ignores :math:`f^*` in the smooth variant. There a step
      size of exactly zero also stays zero for ever, because smoothing grows from it;
      here it grows from the last positive one. ``optax.polyak_sgd`` has neither ``c``
      nor smoothing, steps uphill below ``f_min`` in its default variant, stops once the
      squared norm is below 2.2e-16, and keeps no step size in its state.
    """
    require_choice("variant", variant, Variant)
    if variant == "plus" and c is not None:
        raise ValueError(
            "c does not apply to variant 'plus', which divides by the bare squared "
            "norm: leave c out, or use variant 'constant'."
        )
    caution = {"plus": 1.0}.get(variant, 0.5) if c is None else c
    require_within("[0, inf]", max_learning_rate=max_learning_rate)
    require_within("(-inf, inf)", f_min=f_min)
    require_within("(0, inf)", c=caution, growth=growth, n_batches=n_batches)
    require_within("[0, inf)", eps=eps)
    require_within("(0, inf]", init_step_size=init_step_size)

    def init_fn(params: optax.Params) -> SpsState:
        dtype = scalar_dtype(params)
        return SpsState(
            count=jnp.zeros([], jnp.int32),
            step_size=jnp.zeros([], dtype),
            last_positive=jnp.asarray(init_step_size, dtype),
        )

    def update_fn(
        updates: optax.Updates,
        state: SpsState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SpsState]:
        del params, extra_args
        require_value(value, "sps")
        dtype = state.step_size.dtype
        square = inner_product(updates, updates).astype(dtype)
        bound = jnp.asarray(
            at_step("max_learning_rate", max_learning_rate, state.count), dtype
        )
        if variant == "smooth":
            bound = jnp.minimum(bound, grown(state.last_positive, growth, n_batches))
        scaled = jnp.asarray(caution, dtype) * square + jnp.asarray(eps, dtype)
        step_size = polyak_step(
            excess(value, f_min, state.count, dtype),
            # A zero gradient must show as a zero denominator, whatever eps is.
            jnp.where(square == 0, 0, scaled),
            bound,
        )
        return against(step_size, updates), SpsState(
            count=optax.safe_increment(state.count),
            step_size=step_size,
            last_positive=jnp.where(step_size > 0, step_size, state.last_positive),
        )

    return transformation("sps", init_fn, update_fn)
