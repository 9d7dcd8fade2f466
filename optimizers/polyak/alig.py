"""ALI-G: SGD with a capped Polyak step size for interpolating models."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.optimizers.polyak.step_size import (
    excess,
    polyak_step,
    require_value,
    tells_step_size,
)
from gnomon.parameters.checks import (
    ScalarOrSchedule,
    at_step,
    require_params,
    require_within,
)
from gnomon.parameters.products import inner_product, scalar_dtype
from gnomon.parameters.trees import compute_dtype, map_leaves

__all__ = ["AligState", "alig"]

RECOMMENDED = {"alig": dict(max_learning_rate=0.1, momentum=0.9)}


@tells_step_size
class AligState(NamedTuple):
    """State of :func:`alig`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    step_size: jax.Array  # of the last update, shape=()
    velocity: optax.Updates  # the momentum buffer, in accumulator_dtype


def project_onto_ball(
    updates: optax.Updates, params: optax.Params, max_norm: jax.typing.ArrayLike
) -> optax.Updates:
    """Changes updates so that the new parameters have norm ``max_norm`` at most.

    Args:
      updates: what is about to be added to ``params``.
      params: the current parameters.
      max_norm: largest norm of all parameters together.

    Returns:
      The new updates, in the dtypes of the old ones.

    Example:
      >>> w = {"a": jnp.array([3.0]), "b": jnp.array([2.0])}
      >>> updates = {"a": jnp.array([0.0]), "b": jnp.array([2.0])}
      >>> print(project_onto_ball(updates, w, max_norm=2.5))
      {'a': Array([-1.5], dtype=float32), 'b': Array([0.], dtype=float32)}
    """

    def move(update: jax.Array, param: jax.Array) -> tuple[jax.Array]:
        dtype = compute_dtype(param.dtype)
        return (param.astype(dtype) + update.astype(dtype),)

    (moved,) = map_leaves(move, updates, (), params)
    square = inner_product(moved, moved)
    outside = square > jnp.square(jnp.asarray(max_norm, square.dtype))
    norm = jnp.sqrt(jnp.where(outside, square, 1))
    factor = jnp.where(outside, jnp.asarray(max_norm, square.dtype) / norm, 1)

    def pull(
        update: jax.Array, target: jax.Array, param: jax.Array
    ) -> tuple[jax.Array]:
        dtype = target.dtype
        pulled = factor.astype(dtype) * target - param.astype(dtype)
        return (jnp.where(outside, pulled, update.astype(dtype)).astype(update.dtype),)

    return map_leaves(pull, updates, (), moved, params)[0]


def alig(
    max_learning_rate: ScalarOrSchedule,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    f_min: ScalarOrSchedule = 0.0,
    eps: jax.typing.ArrayLike = 1e-5,
    adjusted_momentum: bool = False,
    max_norm: jax.typing.ArrayLike | None = None,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""ALI-G: the Polyak step size with a maximal learning rate and Nesterov momentum.

    .. math::
      \gamma &= \min\Big\{\frac{(f - f^*)_+}{\|g\|^2 + \epsilon},\ \eta\Big\} \\
      v &\leftarrow \mu v - \gamma\, g, \qquad
      w \leftarrow \Pi_r\,(w - \gamma\, g + \mu v)

    where :math:`\Pi_r` projects all parameters together onto the ball of radius
    ``max_norm``, the method's regularization in place of weight decay. With a loss at
    its minimum the gradient part is zero and only momentum moves the weights. See
    :mod:`gnomon.optimizers.polyak` for what the family has in common.

    Args:
      max_learning_rate: upper bound :math:`\eta` of the step size, a scalar or a
        schedule; 0.1 to 1 in the paper. It is the one value to tune and needs no decay.
      momentum: Nesterov momentum :math:`\mu`, default 0.9.
      f_min: :math:`f^*`, a scalar or a schedule, default 0.
      eps: :math:`\epsilon` of the denominator, default 1e-5.
      adjusted_momentum: keep the step size outside the buffer,
        :math:`v \leftarrow \mu v - g` and :math:`w \leftarrow w - \gamma g + \gamma\mu
        v`, so that a changed step size acts on old gradients too.
      max_norm: radius of the ball, default None for no projection; 75 to 100 in the
        paper.
      accumulator_dtype: dtype of the momentum, default that of the parameters.

    Returns:
      The optimizer. It needs the extra arg ``value`` in ``update``, and ``params`` if
      ``max_norm`` is given; its state is an :class:`AligState`.

    Raises:
      ValueError: if ``value`` is missing, ``params`` is missing with ``max_norm``, or a
        hyperparameter is not one number or out of range.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> optimizer = alig(0.1, momentum=0.5)
      >>> w = jnp.array([1.0, 2.0, 3.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     value, grad = jax.value_and_grad(loss)(w)
      ...     updates, state = optimizer.update(grad, state, w, value=value)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"loss {loss(w):.3f}, step size {state.step_size:.2f}")
      loss 6.860, step size 0.10
      loss 2.710, step size 0.10
      loss 0.861, step size 0.10

    References:
      Berrada et al., `Training Neural Networks for and by Interpolation
      <https://arxiv.org/abs/1906.05661>`_, 2020

    Differences:
      The authors' code also projects the initial parameters; a transform first sees
      them at the first update, whose result is projected. :math:`f^*` is 0 there.
    """
    require_within("[0, inf]", max_learning_rate=max_learning_rate)
    require_within("[0, 1)", momentum=momentum)
    require_within("(-inf, inf)", f_min=f_min)
    require_within("[0, inf)", eps=eps)
    if max_norm is not None:
        require_within("(0, inf]", max_norm=max_norm)

    def init_fn(params: optax.Params) -> AligState:
        return AligState(
            count=jnp.zeros([], jnp.int32),
            step_size=jnp.zeros([], scalar_dtype(params)),
            velocity=optax.tree.zeros_like(params, dtype=accumulator_dtype),
        )

    def update_fn(
        updates: optax.Updates,
        state: AligState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, AligState]:
        del extra_args
        require_value(value, "alig")
        dtype = state.step_size.dtype
        square = inner_product(updates, updates).astype(dtype)
        step_size = polyak_step(
            excess(value, f_min, state.count, dtype),
            jnp.where(square == 0, 0, square + jnp.asarray(eps, dtype)),
            at_step("max_learning_rate", max_learning_rate, state.count),
        )

        def rule(grad: jax.Array, velocity: jax.Array) -> tuple[jax.Array, jax.Array]:
            leaf = compute_dtype(grad.dtype)
            gamma, mu = step_size.astype(leaf), jnp.asarray(momentum, leaf)
            g, v = grad.astype(leaf), velocity.astype(leaf)
            inside, outside = (1.0, gamma) if adjusted_momentum else (gamma, 1.0)
            v = mu * v - inside * g
            u = mu * outside * v - gamma * g
            return u.astype(grad.dtype), v.astype(velocity.dtype)

        updates, velocity = map_leaves(rule, updates, (state.velocity,))
        if max_norm is not None:
            require_params(params, "alig with max_norm")
            updates = project_onto_ball(updates, params, max_norm)
        return updates, AligState(
            optax.safe_increment(state.count), step_size, velocity
        )

    return transformation("alig", init_fn, update_fn)
