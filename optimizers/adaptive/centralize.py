"""Gradient centralization and standardization: without a unit's mean, of one spread."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.leafwise import leafwise
from gnomon.parameters.units import Rules

__all__ = ["CentralizeState", "centralize_units", "standardize_gradients"]


class CentralizeState(NamedTuple):
    """State of :func:`centralize_units` and of :func:`standardize_gradients`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]


def centralize_units(
    *, rules: Rules | None = None, stacked: str | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Subtracts from every output unit's gradient its mean over what feeds the unit.

    .. math::
      g_i \leftarrow g_i - \frac{1}{n} \sum_{j=1}^n g_{ij}

    The sum of a unit's weights then stays as it is. Leaves without units pass.

    Args:
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform.

    Raises:
      ValueError: if a rule or ``stacked`` matches no leaf.

    Example:
      >>> g = jnp.array([[1.0, 4.0], [3.0, 8.0]])
      >>> print(centralize_units().update(g, centralize_units().init(g))[0])
      [[-1. -2.]
       [ 1.  2.]]

    References:
      Yong et al., `Gradient Centralization: A New Optimization Technique for Deep
      Neural Networks <https://arxiv.org/abs/2004.01461>`_, 2020

    Differences:
      ``optax.centralize`` takes the mean over all axes but the first, which is right
      where outputs come first; on Flax's kernels it is a mean over the outputs.
    """

    def rule(h: Any, g: jax.Array, w: None) -> jax.Array:
        if not h.axes.reduce or not g.size:
            return g
        return g - jnp.mean(g, axis=h.axes.reduce, keepdims=True)

    return leafwise(
        "centralize_units",
        rule,
        CentralizeState,
        (),
        {},
        rules=rules,
        stacked=stacked,
        needs_params=False,
    )


def standardize_gradients(
    eps: jax.typing.ArrayLike = 1e-8, *, stacked: str | None = None
) -> optax.GradientTransformationExtraArgs:
    r"""Divides the gradient of every layer by its standard deviation.

    .. math::
      g \leftarrow \frac{g}{s + \epsilon}, \qquad
      s^2 = \frac{1}{n - 1} \sum_j (g_j - \bar g)^2

    for leaves of more than two numbers a layer; the mean stays in it.

    Args:
      eps: added to the deviation, default 1e-8.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform.

    Raises:
      ValueError: if ``eps`` is not one number or out of range, or ``stacked`` matches
        no leaf.

    Example:
      >>> spread, g = standardize_gradients(), jnp.array([1.0, 2.0, 3.0]) * 1e-3
      >>> print(*(f"{x:.2f}" for x in spread.update(g, spread.init(g))[0]))
      1.00 2.00 3.00

    References:
      Wright and Demeure, `Ranger21: a synergistic deep learning optimizer
      <https://arxiv.org/abs/2106.13731>`_, 2021
    """

    def rule(h: Any, g: jax.Array, w: None) -> jax.Array:
        axes = h.axes.layer(g.ndim).reduce
        count = 1
        for axis in axes:
            count *= g.shape[axis]
        if count <= 2:
            return g
        away = g - jnp.mean(g, axis=axes, keepdims=True)
        square = jnp.sum(jnp.square(away), axis=axes, keepdims=True) / (count - 1)
        spread = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        below = spread + h.eps
        return jnp.where(below > 0, g / jnp.where(below > 0, below, 1), g)

    return leafwise(
        "standardize_gradients",
        rule,
        CentralizeState,
        (),
        {"[0, inf)": dict(eps=eps)},
        stacked=stacked,
        needs_params=False,
    )
