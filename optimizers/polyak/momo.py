"""MoMo and MoMo-Adam: a model of the loss from momentum sets the step size."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.diagnostics import tells
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.optimizers.polyak.step_size import (
    polyak_step,
    require_value,
    tells_step_size,
)
from gnomon.parameters.checks import (
    ScalarOrSchedule,
    at_step,
    is_zero,
    require_params,
    require_within,
)
from gnomon.parameters.products import inner_product, leaf_products, scalar_dtype, total
from gnomon.parameters.trees import (
    broadcast_mask,
    compute_dtype,
    map_leaves,
    safe_divide,
)

__all__ = ["MomoState", "momo", "momo_adam"]

RECOMMENDED = {
    "momo": dict(learning_rate=1.0, b1=0.9, weight_decay=0.0),
    "momo_adam": dict(learning_rate=1e-2, b1=0.9, b2=0.999, weight_decay=0.0),
}


@tells_step_size
@tells("f_min", "lower bound of the loss, estimated or given")
class MomoState(NamedTuple):
    """State of :func:`momo` and :func:`momo_adam`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    step_size: jax.Array  # tau of the last update, shape=()
    f_min: jax.Array  # the lower bound of the loss, estimated or given, shape=()
    value_average: jax.Array  # average of the losses, shape=()
    product_average: jax.Array  # average of <gradient, parameters>, shape=()
    mu: optax.Updates  # average of the gradients, in float32 or wider
    nu: optax.Updates | None  # average of their squares, None for momo


def momo(
    learning_rate: ScalarOrSchedule = 1.0,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    f_min: jax.typing.ArrayLike = 0.0,
    estimate_f_min: bool = False,
    bias_correction: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""MoMo: momentum SGD whose learning rate is cut back to what the loss supports.

    Averages :math:`d` of the gradients, :math:`\bar f` of the losses and :math:`\bar
    \gamma` of the products :math:`\langle g, w\rangle`, each as :math:`\beta (\cdot) +
    (1 - \beta) (\cdot)`, make a model of the loss, :math:`h(x) = \bar f + \langle d, x
    \rangle - \bar\gamma`. The step goes along :math:`d` until the model reaches
    :math:`f^*`, or as far as the learning rate allows:

    .. math::
      \tau &= \min\Big\{\frac{\alpha}{\rho},\ \frac{\big((1 + \alpha\lambda)(\bar f -
        \rho f^* - \bar\gamma) + \langle d, w\rangle\big)_+}{\|d\|^2}\Big\} \\
      w &\leftarrow \frac{w - \tau d}{1 + \alpha\lambda}

    Weight decay is part of the model: the whole step is divided, not the weights alone.
    See :mod:`gnomon.optimizers.polyak` for what the family has in common.

    Args:
      learning_rate: upper bound :math:`\alpha` of the step size, a scalar or a
        schedule, default 1. It can be chosen large.
      b1: decay :math:`\beta` of the averages, default 0.9.
      f_min: lower bound :math:`f^*` of the loss, without the term of weight decay, a
        scalar, default 0.
      estimate_f_min: raise the lower bound to what the model reaches in each step, and
        lower it again when the model falls below it, never below ``f_min``; default
        False. The current bound is the field ``f_min`` of the state.
      bias_correction: start the averages at zero with :math:`\rho = 1 - \beta^t`,
        instead of at the first values with :math:`\rho = 1`; default False.
      weight_decay: :math:`\lambda`, a scalar or a schedule, default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.

    Returns:
      The optimizer. It needs ``params`` and the extra arg ``value`` in ``update``; its
      state is a :class:`MomoState`.

    Raises:
      ValueError: if ``params`` or ``value`` is missing or a hyperparameter is not one
        number or out of range.

    Example:
      >>> import jax, jax.numpy as jnp, optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> optimizer = momo(b1=0.5, weight_decay=1e-2)
      >>> w = jnp.array([1.0, 2.0, 3.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     value, grad = jax.value_and_grad(loss)(w)
      ...     updates, state = optimizer.update(grad, state, w, value=value)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"loss {loss(w):.4f}, step size {state.step_size:.3f}")
      loss 3.5000, step size 0.248
      loss 2.4306, step size 0.053
      loss 1.6400, step size 0.061

    References:
      Schaipp et al., `MoMo: Momentum Models for Adaptive Learning Rates
      <https://arxiv.org/abs/2305.07583>`_, 2024

    Differences:
      With a mask the same model is minimized with one :math:`\lambda` a leaf; the
      authors' package, version 0.1.0, has no mask. It divides by :math:`\|d\|^2` also
      where that is zero; here no step is taken then. :math:`d` is kept in float32 even
      for bfloat16 parameters, because :math:`\langle d, w \rangle - \bar\gamma` is a
      small difference of large numbers. ``optax.contrib.momo`` divides :math:`w` alone
      by :math:`1 + \alpha\lambda`, so it agrees only without weight decay, and has
      neither the bias correction nor the step size.
    """
    return _momo(
        "momo",
        learning_rate,
        b1=b1,
        second_moment=None,
        f_min=f_min,
        estimate_f_min=estimate_f_min,
        bias_correction=bias_correction,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
        divide=True,
    )


def momo_adam(
    learning_rate: ScalarOrSchedule = 1e-2,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    f_min: jax.typing.ArrayLike = 0.0,
    estimate_f_min: bool = False,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    divide: bool = True,
) -> optax.GradientTransformationExtraArgs:
    r"""MoMo-Adam: Adam whose learning rate is cut back to what the loss supports.

    :func:`momo` in Adam's metric :math:`D = \epsilon + \sqrt{v / (1 - \beta_2^t)}`,
    with averages that start at zero and :math:`\rho = 1 - \beta_1^t`:

    .. math::
      \tau &= \min\Big\{\frac{\alpha}{\rho},\ \frac{\big((1 + \alpha\lambda)(\bar f -
        \rho f^* - \bar\gamma) + \langle d, w\rangle\big)_+}
        {\langle d, D^{-1} d\rangle}\Big\} \\
      w &\leftarrow \frac{w - \tau D^{-1} d}{1 + \alpha\lambda}

    Where the learning rate is the smaller of the two, the step is Adam's.

    Args:
      learning_rate: upper bound :math:`\alpha`, a scalar or a schedule, default 1e-2.
      b1: decay :math:`\beta_1` of the averages, default 0.9.
      b2: decay :math:`\beta_2` of the second moment, default 0.999.
      eps: :math:`\epsilon`, default 1e-8.
      f_min: lower bound :math:`f^*` of the loss, a scalar, default 0.
      estimate_f_min: estimate the lower bound, as in :func:`momo`; default False.
      weight_decay: :math:`\lambda`, a scalar or a schedule, default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      divide: False replaces the division by that of AdamW, :math:`w \leftarrow (1 -
        \alpha\lambda) w - \tau D^{-1} d`; default True.

    Returns:
      The optimizer. It needs ``params`` and the extra arg ``value`` in ``update``; its
      state is a :class:`MomoState`.

    Raises:
      ValueError: if ``params`` or ``value`` is missing or a hyperparameter is not one
        number or out of range.

    Example:
      At a learning rate of 10, Adam's first step has length 10 a coordinate:

      >>> import jax, jax.numpy as jnp, optax
      >>> loss = lambda w: jnp.sum(w**2)
      >>> optimizer = momo_adam(10.0, b1=0.5)
      >>> w = jnp.array([1.0, 2.0, 3.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     value, grad = jax.value_and_grad(loss)(w)
      ...     updates, state = optimizer.update(grad, state, w, value=value)
      ...     w = optax.apply_updates(w, updates)
      ...     print(f"loss {loss(w):.4f}, step size {state.step_size:.3f}")
      loss 4.0833, step size 2.333
      loss 2.3694, step size 0.599
      loss 1.4548, step size 0.400

    References:
      Schaipp et al., `MoMo: Momentum Models for Adaptive Learning Rates
      <https://arxiv.org/abs/2305.07583>`_, 2024

    Differences:
      See :func:`momo`; ``optax.contrib.momo_adam`` too divides :math:`w` alone. As in
      the authors' package, ``divide=False`` keeps the formula of :math:`\tau`.
    """
    require_within("[0, 1)", b2=b2)
    require_within("[0, inf)", eps=eps)
    return _momo(
        "momo_adam",
        learning_rate,
        b1=b1,
        second_moment=(b2, eps),
        f_min=f_min,
        estimate_f_min=estimate_f_min,
        bias_correction=True,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
        divide=divide,
    )


def _momo(
    name: str,
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike,
    second_moment: tuple[jax.typing.ArrayLike, jax.typing.ArrayLike] | None,
    f_min: jax.typing.ArrayLike,
    estimate_f_min: bool,
    bias_correction: bool,
    weight_decay: ScalarOrSchedule,
    weight_decay_mask: optax.MaskOrFn | None,
    divide: bool,
) -> optax.GradientTransformationExtraArgs:
    """MoMo in the identity metric, or in that of ``second_moment = (b2, eps)``."""
    no_decay = not callable(weight_decay) and is_zero(weight_decay)
    # Without a bound a decayed weight would be the quotient of two infinite numbers.
    require_within("[0, inf]" if no_decay else "[0, inf)", learning_rate=learning_rate)
    require_within("[0, 1)", b1=b1)
    require_within("(-inf, inf)", f_min=f_min)
    require_within("[0, inf)", weight_decay=weight_decay)

    def init_fn(params: optax.Params) -> MomoState:
        dtype = scalar_dtype(params)

        def zeros() -> optax.Params:
            return jax.tree.map(
                lambda w: jnp.zeros_like(w, dtype=compute_dtype(w.dtype)), params
            )

        return MomoState(
            count=jnp.zeros([], jnp.int32),
            step_size=jnp.zeros([], dtype),
            f_min=jnp.array(f_min, dtype),
            value_average=jnp.zeros([], dtype),
            product_average=jnp.zeros([], dtype),
            mu=zeros(),
            nu=None if second_moment is None else zeros(),
        )

    def update_fn(
        updates: optax.Updates,
        state: MomoState,
        params: optax.Params | None = None,
        *,
        value: Any = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, MomoState]:
        del extra_args
        require_params(params, name)
        require_value(value, name)
        dtype = state.step_size.dtype
        count = optax.safe_increment(state.count)
        beta = jnp.asarray(b1, dtype)
        # As far down, or up, as numbers go: what a tracer holds may be infinite.
        largest = jnp.finfo(dtype).max / 4
        floor = jnp.clip(jnp.asarray(f_min, dtype), -largest, largest)
        rate = jnp.asarray(at_step("learning_rate", learning_rate, state.count), dtype)
        decay = jnp.asarray(at_step("weight_decay", weight_decay, state.count), dtype)
        if bias_correction:
            rho = 1 - beta ** count.astype(dtype)
        else:
            rho = jnp.ones([], dtype)
            # The averages start at the first values.
            beta = jnp.where(state.count == 0, 0, beta)

        def average(old: jax.Array, new: jax.Array) -> jax.Array:
            b = beta.astype(old.dtype)
            return b * old + (1 - b) * new.astype(old.dtype)

        value_average = average(state.value_average, jnp.asarray(value))
        product_average = average(state.product_average, inner_product(updates, params))
        (mu,) = map_leaves(lambda g, d: (g, average(d, g)), updates, (state.mu,))[1:]
        direction, nu = _precondition(mu, updates, state.nu, second_moment, count)

        masked = broadcast_mask(weight_decay_mask, params)
        # Also where there is no cap, an infinite learning rate, and no decay.
        strength = jnp.where(decay == 0, 0, rate * decay)
        shrink = safe_divide(jnp.ones([], dtype), 1 + strength)

        def shrunk(products: Any) -> jax.Array:
            factors = map_leaves(
                lambda p, decays: (p.astype(dtype) * (shrink if decays else 1.0),),
                products,
                (),
                masked,
            )
            return total(factors[0], dtype)

        products, squares = leaf_products(mu, params), leaf_products(mu, direction)
        # Divided by 1 + rate * decay, the numerator is the model at the point which
        # decay alone would reach; in this form each leaf may have its own decay.
        intercept = value_average - product_average
        model = intercept + shrunk(products)
        bound = jnp.clip(state.f_min, -largest, largest)
        if estimate_f_min:
            lowered = jnp.maximum(safe_divide(model, 2 * rho), floor)
            bound = jnp.where(model < rho * bound, lowered, bound)
        tau = polyak_step(model - rho * bound, shrunk(squares), safe_divide(rate, rho))
        if estimate_f_min:
            reached = (
                intercept + total(products, dtype) - tau * total(squares, dtype) / 2
            )
            bound = jnp.maximum(safe_divide(reached, rho), floor)

        def step(
            grad: jax.Array, d: jax.Array, param: jax.Array, decays: bool
        ) -> tuple[jax.Array]:
            leaf = compute_dtype(param.dtype)
            w, d = param.astype(leaf), d.astype(leaf)
            lam = strength.astype(leaf) if decays else 0.0
            move = tau.astype(leaf) * d + lam * w
            if divide:
                move = safe_divide(move, 1 + jnp.asarray(lam, leaf))
            return ((-move).astype(param.dtype),)

        (updates,) = map_leaves(step, updates, (), direction, params, masked)
        return updates, MomoState(
            count, tau, bound, value_average, product_average, mu, nu
        )

    return transformation(name, init_fn, update_fn)


def _precondition(
    mu: optax.Updates,
    grads: optax.Updates,
    nu: optax.Updates | None,
    second_moment: tuple[jax.typing.ArrayLike, jax.typing.ArrayLike] | None,
    count: jax.Array,
) -> tuple[optax.Updates, optax.Updates | None]:
    """The direction ``mu / D`` and the new second moment; ``mu`` itself for momo."""
    if second_moment is None:
        return mu, None
    b2, eps = second_moment

    def rule(
        grad: jax.Array, v: jax.Array, d: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        dtype = v.dtype
        beta, epsilon = jnp.asarray(b2, dtype), jnp.asarray(eps, dtype)
        v = beta * v + (1 - beta) * jnp.square(grad.astype(dtype))
        fisher = safe_divide(v, 1 - beta ** count.astype(dtype))
        # Only without eps can it be zero, and then every gradient so far was.
        return safe_divide(d, jnp.sqrt(fisher) + epsilon), v

    return map_leaves(rule, grads, (nu,), mu)
