"""Normalized logistic descent: gradients over the mean slope of the loss."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.leafwise import leafwise

__all__ = ["ScaleByMeanSlopeState", "scale_by_mean_slope"]
# Of less there are no digits left.
_FLAT = 1e-30


class ScaleByMeanSlopeState(NamedTuple):
    """State of :func:`scale_by_mean_slope`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    direction: optax.Updates  # the last one, in the dtype of the updates


def scale_by_mean_slope() -> optax.GradientTransformationExtraArgs:
    r"""Divides the gradient of a logistic loss by its mean slope.

    For the mean of :math:`\ln(1 + e^{-z_i})` over margins
    :math:`z_i = y_i \langle a_i, w \rangle`, whose slopes are
    :math:`s_i = 1 / (1 + e^{z_i})`, emits

    .. math::
      \frac{\nabla f}{\frac{1}{n} \sum_i s_i}
      = - \frac{\sum_i s_i\, y_i a_i}{\sum_i s_i}

    a mean of the samples that are on the wrong side, in which long steps do not fade as
    the loss does. With the step :math:`\gamma`, from zero, it separates samples of norm
    :math:`R` and margin :math:`\mu` within
    :math:`R^2 / \mu^2 + 2 \ln(2n - 1) / (\gamma \mu^2)` steps.

    Returns:
      The transform. It reads the extra arg ``slope``, the mean of :math:`s_i`, or in
      its place ``value``, the mean loss, of which it takes :math:`1 - e^{-f}`: the mean
      slope where all margins are equal, and more than it elsewhere, so that steps are
      never longer. Where the slope is below 1e-30 the last direction is kept.

    Raises:
      ValueError: if ``update`` is given neither ``slope`` nor ``value``.

    Example:
      The gradient has faded to a millionth; the direction has not:

      >>> a, w = jnp.array([3.0, 4.0]), jnp.array([2.0, 2.0])
      >>> loss = lambda w: jnp.log1p(jnp.exp(-w @ a))
      >>> value, g = jax.value_and_grad(loss)(w)
      >>> optimizer = scale_by_mean_slope()
      >>> d, _ = optimizer.update(g, optimizer.init(w), slope=jax.nn.sigmoid(-w @ a))
      >>> print(f"{g[0]:.1e} {g[1]:.1e}, {d[0]:.3f} {d[1]:.3f}")
      -2.5e-06 -3.3e-06, -3.000 -4.000

    References:
      Tyurin, `From Logistic Regression to the Perceptron Algorithm: Exploring Gradient
      Descent with Large Step Sizes <https://arxiv.org/abs/2412.08424>`_, 2024

    Differences:
      ``value`` in place of ``slope`` and the guard of a slope of zero are additions.
    """

    def further(
        updates: Any, count: jax.Array, params: Any, extra_args: dict[str, Any]
    ) -> tuple[Any]:
        slope = extra_args.get("slope")
        if slope is None:
            value = extra_args.get("value")
            if value is None:
                raise ValueError(
                    "scale_by_mean_slope needs the mean slope of the loss, or the "
                    "loss: call `update(grads, state, params, slope=slope)`, or with "
                    "`value=loss`."
                )
            slope = -jnp.expm1(-jnp.asarray(value))
        return (jax.tree.map(lambda _: jnp.asarray(slope), updates),)

    def rule(
        h: Any, g: jax.Array, w: None, last: jax.Array, slope: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        steep = slope > _FLAT
        direction = jnp.where(steep, g / jnp.where(steep, slope, 1), last)
        return direction, direction

    return leafwise(
        "scale_by_mean_slope",
        rule,
        ScaleByMeanSlopeState,
        (None,),
        {},
        further=further,
        needs_params=False,
    )
