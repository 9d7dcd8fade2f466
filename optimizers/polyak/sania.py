"""SANIA: the Polyak step size in any metric, with no learning rate to set."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.inner import ascending
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.optimizers.polyak.step_size import (
    against,
    excess,
    polyak_step,
    require_value,
    tells_step_size,
)
from gnomon.parameters.checks import ScalarOrSchedule, at_step, require_within
from gnomon.parameters.products import inner_product, scalar_dtype

__all__ = ["SaniaState", "sania"]

# The authors' floor of 0.1 is for small convex problems.
RECOMMENDED = {
    "sania": dict(
        preconditioner=dict(name="gnomon.optimizers.scale_by_adagrad_sqr", eps=1.0)
    ),
    "sania_hutchinson": dict(
        name="gnomon.optimizers.sania",
        preconditioner=dict(
            name="gnomon.optimizers.scale_by_hutchinson", b2=0.999, eps=1.0
        ),
    ),
}


@tells_step_size
class SaniaState(NamedTuple):
    """State of :func:`sania`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    step_size: jax.Array  # lambda of the last update, in [0, 1], shape=()
    preconditioner: optax.OptState  # the state of the preconditioner


def sania(
    preconditioner: optax.GradientTransformation,
    *,
    f_min: ScalarOrSchedule = 0.0,
    max_learning_rate: ScalarOrSchedule = 1.0,
) -> optax.GradientTransformationExtraArgs:
    r"""SANIA: the step to where a quadratic model of the loss reaches its minimum.

    With :math:`s = B^{-1} g` from the preconditioner and :math:`N = \langle s, g
    \rangle`, the model :math:`f + \langle g, x \rangle + \tfrac12 \|x\|_B^2` falls to
    :math:`f^*` along :math:`-s` at

    .. math::
      \lambda = \begin{cases}
        1 - \sqrt{1 - 2 (f - f^*)_+ / N} & 2 (f - f^*) < N \\ 1 & \text{otherwise}
      \end{cases} \qquad w \leftarrow w - \lambda\, s,

    and :math:`\lambda = 1` is the minimum of the model itself, Newton's step if
    :math:`B` is the Hessian. With squared gradients for :math:`B` and no floor
    (``eps=0``) training does not change when features are rescaled one by one: where
    they are multiplied by :math:`V`, the parameters are those of before times
    :math:`V^{-1}`. See :mod:`gnomon.optimizers.polyak` for what the family has in
    common.

    Args:
      preconditioner: a transform from the gradient :math:`g` to :math:`B^{-1} g`, with
        :math:`B` positive definite: :func:`scale_by_adagrad_sqr`,
        :func:`scale_by_adam_sqr`, :func:`scale_by_hutchinson`, :func:`scale_by_newton`,
        ``optax.identity()``, or ``optax.scale_by_rss()`` and ``optax.scale_by_rms()``,
        which take square roots. It is given the extra args of ``update``.
      f_min: :math:`f^*`, a scalar or a schedule, default 0.
      max_learning_rate: upper bound of :math:`\lambda`, a scalar or a schedule; values
        below 1, the default, cut the step short.

    Returns:
      The optimizer. It needs the extra arg ``value`` in ``update``, and what the
      preconditioner needs; its state is a :class:`SaniaState`.

    Raises:
      ValueError: if ``value`` is missing, a hyperparameter is not one number or out of
        its range, or the preconditioner descends.

    Example:
      The second feature is of scale 1, then of scale 100; the losses are the same:

      >>> import jax, jax.numpy as jnp, optax
      >>> from gnomon.optimizers import scale_by_adagrad_sqr
      >>> optimizer = sania(scale_by_adagrad_sqr(eps=0.0))
      >>> for scale in (1.0, 100.0):
      ...     features = jnp.array([[1.0, 2.0 * scale], [3.0, scale]])
      ...     loss = lambda w: jnp.mean((features @ w - 1.0) ** 2)
      ...     w, losses = jnp.zeros(2), []
      ...     state = optimizer.init(w)
      ...     for _ in range(5):
      ...         value, grad = jax.value_and_grad(loss)(w)
      ...         updates, state = optimizer.update(grad, state, w, value=value)
      ...         w = optax.apply_updates(w, updates)
      ...         losses.append(f"{value:.4f}")
      ...     print(*losses)
      1.0000 0.0069 0.0047 0.0032 0.0022
      1.0000 0.0069 0.0047 0.0032 0.0022

    References:
      Abdukhakimov et al., `SANIA: Polyak-type Optimization Framework Leads to Scale
      Invariant Stochastic Algorithms <https://arxiv.org/abs/2312.17369>`_, 2023

    Differences:
      The authors' code takes one :math:`\lambda` for each group of parameters and has
      :math:`f^* = 0`; here it is one for all parameters, as in the paper. A direction
      that is not one of descent, :math:`N \le 0`, gives the step size 0; there it gives
      a full step.
    """
    preconditioner = layered(ascending("preconditioner", preconditioner))
    require_within("(-inf, inf)", f_min=f_min)
    require_within("[0, inf]", max_learning_rate=max_learning_rate)

    def init_fn(params: optax.Params) -> SaniaState:
        return SaniaState(
            count=jnp.zeros([], jnp.int32),
            step_size=jnp.zeros([], scalar_dtype(params)),
            preconditioner=preconditioner.init(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: SaniaState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, SaniaState]:
        require_value(value, "sania")
        dtype = state.step_size.dtype
        direction, inner = preconditioner.update(
            updates, state.preconditioner, params, value=value, **extra_args
        )
        gap = excess(value, f_min, state.count, dtype)
        square = inner_product(direction, updates).astype(dtype)
        ratio = polyak_step(2 * gap, square, 1.0)
        # 1 - sqrt(1 - ratio), without the cancellation at small ratios.
        root = ratio / (1 + jnp.sqrt(1 - ratio))
        bound = at_step("max_learning_rate", max_learning_rate, state.count)
        step_size = jnp.minimum(root, jnp.asarray(bound, dtype))
        return against(step_size, direction), SaniaState(
            optax.safe_increment(state.count), step_size, inner
        )

    return transformation("sania", init_fn, update_fn)
