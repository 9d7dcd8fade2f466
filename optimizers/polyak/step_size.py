r"""Step sizes from the loss value: what the Polyak family shares.

Every method of the family is a line of the same form: a lower bound of the loss falls
short of ``f_min`` by a gap, and the step is the one that closes it,

.. math:: \gamma = \min\Big\{\frac{(f - f^*)_+}{\|d\|^2},\ \gamma_{\max}\Big\}.

The methods differ in the direction :math:`d` and in what bounds the loss. They agree
on the following.

- ``value``, the loss at the current parameters and on the batch of the gradient, is an
  extra arg of ``update``. Under gradient accumulation pass the mean over the
  micro-batches, not the last one.
- ``f_min`` (:math:`f^*`) is the value that the loss is expected to reach, a scalar or a
  schedule. Too low a value leaves the steps too long near the end, too high a value
  stops at the level set. If the minimum of each batch is known, pass its excess as
  ``value``.
- A loss below ``f_min`` gives the step size 0, never a step uphill; so does a zero
  direction.
- A value, or a norm, that is not finite makes the step size NaN and with it every
  parameter, so that a failed run shows at once. To leave such steps out, wrap the
  optimizer in ``optax.conditionally_mask`` with ``forward_extra_args=True`` and a
  condition on ``value`` (``optax.apply_if_finite`` looks at the gradients alone).
- The step size of the last update is the field ``step_size`` of the state:
  ``optax.tree.get(state, "step_size")`` reads it, also inside a chain.
- Norms and inner products go over all leaves and are summed in float32 or wider.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gnomon.optimizers.mechanisms.diagnostics import tells
from gnomon.parameters.checks import ScalarOrSchedule, at_step
from gnomon.parameters.trees import compute_dtype, map_leaves, safe_divide

tells_step_size = tells(
    "step_size", "step size of the update, as the value of the loss asks for it"
)


def require_value(value: Any, name: str) -> None:
    """Refuses an update without the loss.

    Args:
      value: what the caller passed as the extra arg ``value``.
      name: the method that needs it.

    Raises:
      ValueError: if ``value`` is None or not one number.
    """
    if value is None:
        raise ValueError(
            f"{name} needs the extra arg `value`, the loss at the current parameters: "
            "call `update(grads, state, params, value=loss)` with the loss that "
            "`jax.value_and_grad` returns."
        )
    if np.shape(value):
        raise ValueError(
            f"value must be a scalar loss, got an array of shape {np.shape(value)}; "
            "reduce it as the differentiated loss does, for instance by `jnp.mean`."
        )


def polyak_step(
    gap: jax.Array,
    square: jax.Array,
    max_step: jax.typing.ArrayLike,
) -> jax.Array:
    r"""The guarded step size :math:`\min\{(gap)_+ / square,\ max\_step\}`.

    Args:
      gap: how far the loss, or a bound of it, lies above its target; a scalar.
      square: squared norm of the direction times any constant, of the same dtype.
      max_step: upper bound, ``jnp.inf`` for none.

    Returns:
      A step size in ``[0, max_step]``: 0 where ``gap`` or ``square`` is not positive,
      NaN where one of them is not finite.

    Example:
      >>> gaps = jnp.array([3.0, -1.0, 3.0, jnp.inf])
      >>> squares = jnp.array([4.0, 4.0, 0.0, 4.0])
      >>> print(jax.vmap(polyak_step, (0, 0, None))(gaps, squares, 0.5))
      [0.5 0.  0.  nan]
    """
    positive = square > 0
    ratio = jnp.maximum(gap, 0) / jnp.where(positive, square, 1)
    # An infinite step times a coordinate that is zero would be NaN.
    ratio = jnp.where(positive, jnp.minimum(ratio, jnp.finfo(square.dtype).max), 0)
    step = jnp.minimum(ratio, jnp.asarray(max_step, square.dtype))
    finite = jnp.isfinite(gap) & jnp.isfinite(square)
    return jnp.where(finite, step, jnp.nan).astype(square.dtype)


def excess(
    value: jax.Array, f_min: ScalarOrSchedule, count: jax.Array, dtype: Any
) -> jax.Array:
    """How far the loss lies above its expected minimum at one step.

    Args:
      value: the loss, a scalar.
      f_min: the expected minimum, a scalar or a schedule.
      count: updates made so far.
      dtype: the dtype to compute in.

    Returns:
      ``value - f_min``. An infinite ``f_min``, which only a tracer or a schedule can
      be, counts as a number too large to matter: the step is then the bound of its
      size, or zero.

    Example:
      >>> print(excess(jnp.array(3.0), 1.0, jnp.array(0), jnp.float32))
      2.0
    """
    largest = jnp.finfo(dtype).max / 4  # twice the excess is finite too
    target = jnp.asarray(at_step("f_min", f_min, count), dtype)
    return jnp.asarray(value, dtype) - jnp.clip(target, -largest, largest)


def grown(
    last: jax.Array, growth: jax.typing.ArrayLike, n_batches: jax.typing.ArrayLike
) -> jax.Array:
    """The largest step size that smoothing allows: ``growth`` times more an epoch.

    Args:
      last: the last positive step size, a scalar.
      growth: factor by which the step size may grow in one epoch.
      n_batches: steps in one epoch.

    Returns:
      A scalar.

    Example:
      >>> print(f"{grown(jnp.array(0.1), 2.0, 10):.4f}")
      0.1072
    """
    growth, n_batches = (jnp.asarray(x, last.dtype) for x in (growth, n_batches))
    return last * growth ** safe_divide(jnp.ones_like(n_batches), n_batches)


def against(step_size: jax.Array, direction: optax.Updates) -> optax.Updates:
    """The updates ``-step_size * direction``, each in the dtype of its leaf."""

    def scale(d: jax.Array) -> jax.Array:
        dtype = compute_dtype(d.dtype)
        return (-step_size.astype(dtype) * d.astype(dtype)).astype(d.dtype)

    return jax.tree.map(scale, direction)


def heavy_ball(
    step_size: jax.Array,
    momentum: jax.typing.ArrayLike,
    grads: optax.Updates,
    velocity: optax.Updates,
) -> tuple[optax.Updates, optax.Updates]:
    """The update ``momentum * velocity - step_size * grads``.

    Args:
      step_size: a scalar.
      momentum: a scalar.
      grads: the gradient.
      velocity: the last update, of the same structure.

    Returns:
      The update and the new velocity, which is the update in the velocity's dtype.
    """

    def rule(g: jax.Array, v: jax.Array) -> tuple[jax.Array, jax.Array]:
        dtype = compute_dtype(g.dtype)
        step = jnp.asarray(momentum, dtype) * v.astype(dtype)
        step -= step_size.astype(dtype) * g.astype(dtype)
        return step.astype(g.dtype), step.astype(v.dtype)

    new_updates, new_velocity = map_leaves(rule, grads, (velocity,))
    return new_updates, new_velocity
