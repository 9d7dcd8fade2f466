"""ALR: Polyak step sizes for momentum, by averaged gradients and by heavy ball."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.optimizers.polyak.step_size import (
    against,
    excess,
    heavy_ball,
    polyak_step,
    require_value,
    tells_step_size,
)
from gnomon.parameters.checks import ScalarOrSchedule, at_step, require_within
from gnomon.parameters.products import inner_product, scalar_dtype
from gnomon.parameters.trees import compute_dtype, map_leaves

__all__ = ["AlrHbState", "AlrMagState", "alr_hb", "alr_mag", "alr_shb", "alr_smag"]

# alr_hb and alr_mag have no bound to tune: they are meant for exact gradients. On the
# networks of the workloads alr_hb diverges with momentum 0.5 and more, so its line
# starts the tuning of momentum at 0.
RECOMMENDED = {
    "alr_hb": dict(momentum=0.0),
    "alr_mag": dict(momentum=0.9),
    "alr_shb": dict(max_learning_rate=0.1, momentum=0.9, c=1.0),
    "alr_smag": dict(max_learning_rate=0.1, momentum=0.9, c=1.0),
}


@tells_step_size
class AlrMagState(NamedTuple):
    """State of :func:`alr_mag` and :func:`alr_smag`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    step_size: jax.Array  # of the last update, shape=()
    trace: optax.Updates  # the decayed sum of gradients, in accumulator_dtype


@tells_step_size
class AlrHbState(NamedTuple):
    """State of :func:`alr_hb` and :func:`alr_shb`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    step_size: jax.Array  # of the last update, shape=()
    velocity: optax.Updates  # the last update, in the dtype of the parameters


def alr_smag(
    max_learning_rate: ScalarOrSchedule = math.inf,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    c: jax.typing.ArrayLike = 1.0,
    f_min: ScalarOrSchedule = 0.0,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ALR-SMAG: the Polyak step size along a decayed sum of stochastic gradients.

    .. math::
      d \leftarrow \beta d + g, \qquad
      \eta = \min\Big\{\frac{(f - f^*)_+}{c \|d\|^2},\ \eta_{\max}\Big\}, \qquad
      w \leftarrow w - \eta\, d

    Where the bound is active this is momentum SGD with learning rate
    :math:`\eta_{\max}`; where it never is, scaling the loss changes nothing. See
    :mod:`gnomon.optimizers.polyak` for what the family has in common.

    Args:
      max_learning_rate: upper bound :math:`\eta_{\max}`, a scalar or a schedule,
        default no bound; 0.1 is a common choice.
      momentum: decay :math:`\beta` of the sum, default 0.9.
      c: caution factor, default 1, and larger for shorter steps.
      f_min: :math:`f^*`, a scalar or a schedule, default 0.
      accumulator_dtype: dtype of :math:`d`, default that of the parameters.

    Returns:
      The optimizer. It needs the extra arg ``value`` in ``update``; its state is an
      :class:`AlrMagState`.

    Raises:
      ValueError: if ``value`` is missing or a hyperparameter is not one number or out
        of range.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> optimizer = alr_smag(0.2, momentum=0.5)
      >>> w = jnp.array([1.0, 2.0, 3.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     value, grad = jax.value_and_grad(loss)(w)
      ...     updates, state = optimizer.update(grad, state, w, value=value)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"loss {loss(w):.4f}, step size {state.step_size:.3f}")
      loss 5.0400, step size 0.200
      loss 2.6658, step size 0.074
      loss 1.6169, step size 0.049

    References:
      Wang et al., `Generalized Polyak Step Size for First Order Optimization with
      Momentum <https://arxiv.org/abs/2305.12939>`_, 2023

    Differences:
      None are known to be of the authors, whose code is not public. Third parties add
      weight decay; :func:`gnomon.optimizers.momo` has it inside the model of the loss.
    """
    return _along_sum(
        "alr_smag",
        max_learning_rate,
        momentum=momentum,
        c=c,
        f_min=f_min,
        accumulator_dtype=accumulator_dtype,
    )


def alr_mag(
    f_min: ScalarOrSchedule = 0.0,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ALR-MAG: :func:`alr_smag` for exact gradients, without bound or caution.

    .. math::
      d \leftarrow \beta d + g, \qquad
      w \leftarrow w - \frac{(f - f^*)_+}{\|d\|^2}\, d

    On a convex loss with minimum ``f_min`` no step goes away from any solution:

    .. math:: \|w_{t+1} - w^*\|^2 \le \|w_t - w^*\|^2 - (f - f^*)^2 / \|d\|^2.

    Args:
      f_min: :math:`f^*`, a scalar or a schedule, default 0.
      momentum: decay :math:`\beta` of the sum, default 0.9.
      accumulator_dtype: dtype of :math:`d`, default that of the parameters.

    Returns:
      The optimizer. It needs the extra arg ``value`` in ``update``; its state is an
      :class:`AlrMagState`.

    Raises:
      ValueError: if ``value`` is missing or a hyperparameter is not one number or out
        of range.

    Example:
      The distance to the solution falls at every step:

      >>> import jax, jax.numpy as jnp, optax
      >>> loss = lambda w: jnp.sum(jnp.array([1.0, 10.0]) * w**2)
      >>> optimizer = alr_mag(momentum=0.9)
      >>> w = jnp.array([1.0, 1.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     value, grad = jax.value_and_grad(loss)(w)
      ...     updates, state = optimizer.update(grad, state, w, value=value)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"distance {jnp.linalg.norm(w):.3f}")
      distance 1.050
      distance 0.994
      distance 0.963

    References:
      Wang et al., `Generalized Polyak Step Size for First Order Optimization with
      Momentum <https://arxiv.org/abs/2305.12939>`_, 2023

    Differences:
      None are known. Above ``f_min`` it equals ``optax.chain(optax.trace(momentum),
      optax.scale_by_polyak(max_learning_rate=jnp.inf), optax.scale(-1.0))`` bit for bit
      on float32 leaves. That chain climbs below ``f_min``, sums bfloat16 norms in
      bfloat16 and hides the step size.
    """
    return _along_sum(
        "alr_mag",
        math.inf,
        momentum=momentum,
        c=1.0,
        f_min=f_min,
        accumulator_dtype=accumulator_dtype,
    )


def alr_shb(
    max_learning_rate: ScalarOrSchedule = math.inf,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    c: jax.typing.ArrayLike = 1.0,
    f_min: ScalarOrSchedule = 0.0,
) -> optax.GradientTransformationExtraArgs:
    r"""ALR-SHB: the Polyak step size that fits stochastic heavy-ball momentum.

    With the last update :math:`\Delta = w_t - w_{t-1}`,

    .. math::
      \eta = \min\Big\{\frac{(f - f^* + \beta \langle g, \Delta\rangle)_+}{c \|g\|^2},\
        \eta_{\max}\Big\}, \qquad
      w \leftarrow w - \eta\, g + \beta \Delta

    The inner product takes account of what momentum is about to do: where it already
    descends, the gradient step is shorter. See :mod:`gnomon.optimizers.polyak` for what
    the family has in common.

    Args:
      max_learning_rate: upper bound :math:`\eta_{\max}`, a scalar or a schedule,
        default no bound.
      momentum: :math:`\beta`, default 0.9.
      c: caution factor, default 1, and larger for shorter steps.
      f_min: :math:`f^*`, a scalar or a schedule, default 0.

    Returns:
      The optimizer. It needs the extra arg ``value`` in ``update``; its state is an
      :class:`AlrHbState`.

    Raises:
      ValueError: if ``value`` is missing or a hyperparameter is not one number or out
        of range.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> optimizer = alr_shb(0.2, momentum=0.5)
      >>> w = jnp.array([1.0, 2.0, 3.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     value, grad = jax.value_and_grad(loss)(w)
      ...     updates, state = optimizer.update(grad, state, w, value=value)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"loss {loss(w):.4f}, step size {state.step_size:.3f}")
      loss 5.0400, step size 0.200
      loss 1.2600, step size 0.083
      loss 0.3150, step size 0.000

    References:
      Wang et al., `Generalized Polyak Step Size for First Order Optimization with
      Momentum <https://arxiv.org/abs/2305.12939>`_, 2023

    Differences:
      None are known to be of the authors, whose code is not public.
    """
    return _heavy_ball(
        "alr_shb", max_learning_rate, momentum=momentum, c=c, f_min=f_min, gain=1.0
    )


def alr_hb(
    f_min: ScalarOrSchedule = 0.0,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    quadratic: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""ALR-HB: :func:`alr_shb` for exact gradients, without bound or caution.

    .. math::
      w \leftarrow w -
        \frac{(f - f^* + \beta \langle g, \Delta\rangle)_+}{\|g\|^2}\, g + \beta \Delta,
      \qquad \Delta = w_t - w_{t-1}

    The step size minimizes an upper bound of the distance to the solution after the
    heavy-ball step. On ill-conditioned convex losses it is far less sensitive to
    :math:`\beta` than :func:`alr_mag`.

    Args:
      f_min: :math:`f^*`, a scalar or a schedule, default 0.
      momentum: :math:`\beta`, default 0.9.
      quadratic: use :math:`2 (f - f^*)`, the bound that is tight for a quadratic loss,
        default False.

    Returns:
      The optimizer. It needs the extra arg ``value`` in ``update``; its state is an
      :class:`AlrHbState`.

    Raises:
      ValueError: if ``value`` is missing or a hyperparameter is not one number or out
        of range.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> loss = lambda w: jnp.sum(jnp.array([1.0, 10.0]) * w**2)
      >>> optimizer = alr_hb(momentum=0.5)
      >>> w = jnp.array([1.0, 1.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     value, grad = jax.value_and_grad(loss)(w)
      ...     updates, state = optimizer.update(grad, state, w, value=value)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"loss {loss(w):.3f}, step size {state.step_size:.3f}")
      loss 2.968, step size 0.027
      loss 1.014, step size 0.005
      loss 0.894, step size 0.050

    References:
      Wang et al., `Generalized Polyak Step Size for First Order Optimization with
      Momentum <https://arxiv.org/abs/2305.12939>`_, 2023

    Differences:
      None are known to be of the authors, whose code is not public.
    """
    return _heavy_ball(
        "alr_hb",
        math.inf,
        momentum=momentum,
        c=1.0,
        f_min=f_min,
        gain=2.0 if quadratic else 1.0,
    )


def _along_sum(
    name: str,
    max_learning_rate: ScalarOrSchedule,
    *,
    momentum: jax.typing.ArrayLike,
    c: jax.typing.ArrayLike,
    f_min: ScalarOrSchedule,
    accumulator_dtype: jax.typing.DTypeLike | None,
) -> optax.GradientTransformationExtraArgs:
    """The Polyak step along the decayed sum of gradients."""
    _require_ranges(max_learning_rate, momentum, c, f_min)

    def init_fn(params: optax.Params) -> AlrMagState:
        return AlrMagState(
            count=jnp.zeros([], jnp.int32),
            step_size=jnp.zeros([], scalar_dtype(params)),
            trace=optax.tree.zeros_like(params, dtype=accumulator_dtype),
        )

    def update_fn(
        updates: optax.Updates,
        state: AlrMagState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AlrMagState]:
        del params, extra_args
        require_value(value, name)
        dtype = state.step_size.dtype

        def accumulate(
            grad: jax.Array, trace: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            leaf = compute_dtype(grad.dtype)
            d = grad.astype(leaf) + jnp.asarray(momentum, leaf) * trace.astype(leaf)
            return d, d.astype(trace.dtype)

        direction, trace = map_leaves(accumulate, updates, (state.trace,))
        square = inner_product(direction, direction).astype(dtype)
        step_size = polyak_step(
            excess(value, f_min, state.count, dtype),
            jnp.asarray(c, dtype) * square,
            at_step("max_learning_rate", max_learning_rate, state.count),
        )
        steps = against(step_size, direction)
        updates = jax.tree.map(
            lambda step, grad: step.astype(grad.dtype), steps, updates
        )
        return updates, AlrMagState(optax.safe_increment(state.count), step_size, trace)

    return transformation(name, init_fn, update_fn)


def _heavy_ball(
    name: str,
    max_learning_rate: ScalarOrSchedule,
    *,
    momentum: jax.typing.ArrayLike,
    c: jax.typing.ArrayLike,
    f_min: ScalarOrSchedule,
    gain: float,
) -> optax.GradientTransformationExtraArgs:
    """Heavy ball with the step size that closes ``gain`` times the gap."""
    _require_ranges(max_learning_rate, momentum, c, f_min)

    def init_fn(params: optax.Params) -> AlrHbState:
        return AlrHbState(
            count=jnp.zeros([], jnp.int32),
            step_size=jnp.zeros([], scalar_dtype(params)),
            velocity=optax.tree.zeros_like(params),
        )

    def update_fn(
        updates: optax.Updates,
        state: AlrHbState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AlrHbState]:
        del params, extra_args
        require_value(value, name)
        dtype = state.step_size.dtype
        square = inner_product(updates, updates).astype(dtype)
        drift = inner_product(updates, state.velocity).astype(dtype)
        gap = excess(value, f_min, state.count, dtype)
        step_size = polyak_step(
            gain * gap + jnp.asarray(momentum, dtype) * drift,
            jnp.asarray(c, dtype) * square,
            at_step("max_learning_rate", max_learning_rate, state.count),
        )
        updates, velocity = heavy_ball(step_size, momentum, updates, state.velocity)
        return updates, AlrHbState(
            optax.safe_increment(state.count), step_size, velocity
        )

    return transformation(name, init_fn, update_fn)


def _require_ranges(
    max_learning_rate: ScalarOrSchedule,
    momentum: jax.typing.ArrayLike,
    c: jax.typing.ArrayLike,
    f_min: ScalarOrSchedule,
) -> None:
    require_within("[0, inf]", max_learning_rate=max_learning_rate)
    require_within("[0, 1)", momentum=momentum)
    require_within("(0, inf)", c=c)
    require_within("(-inf, inf)", f_min=f_min)
