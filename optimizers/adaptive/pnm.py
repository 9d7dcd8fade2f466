"""Positive-negative momentum: two averages, one of which is taken off the other."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.diagnostics import mean_of, tells
from gnomon.optimizers.mechanisms.leafwise import WIDE, leafwise
from gnomon.parameters.trees import safe_divide

__all__ = ["ScaleByPNMState", "scale_by_pnm"]


@tells(
    "largest_second_moment",
    "mean of the largest second moments so far",
    lambda state: mean_of(state.largest),
)
class ScaleByPNMState(NamedTuple):
    """State of :func:`scale_by_pnm`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    odd: optax.Updates  # momentum of the odd steps, in the dtype of the parameters
    even: optax.Updates  # momentum of the even steps
    nu: optax.Updates  # second moment, in float32 or wider
    largest: optax.Updates  # the largest second moment so far, in float32 or wider


def scale_by_pnm(
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    negative: jax.typing.ArrayLike = 1.0,
    sharpness: jax.typing.ArrayLike = float("inf"),
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam's direction by positive-negative momentum, ascent-signed (AdaPNM).

    Two averages take turns. With :math:`m` that of this step, :math:`m'` the other and
    :math:`\beta_0` the negative weight,

    .. math::
      m &\leftarrow \beta_1^2 m + (1 - \beta_1^2) g, \qquad
      v \leftarrow \beta_2 v + (1 - \beta_2) g^2, \qquad
      \hat v \leftarrow \max(\hat v, v) \\
      u &= \frac{(1 + \beta_0) m - \beta_0 m'}
        {\sqrt{(1 + \beta_0)^2 + \beta_0^2}\; (1 - \beta_1^t)} \Big/
        s\Big(\sqrt{\hat v / (1 - \beta_2^t)} + \epsilon\Big)

    so that the mean of a steady gradient stays, over the root, and its noise grows.
    The denominator may be softened by :math:`s(x) = \ln(1 + e^{\kappa x}) / \kappa`,
    which is at least :math:`\ln 2 / \kappa`; by default it is :math:`x` itself.

    Args:
      b1: decay of the momenta, default 0.9; each has its square, at every other step.
      b2: decay of the second moment, default 0.999.
      eps: added to the root, default 1e-8.
      negative: the weight :math:`\beta_0` of the other average, default 1. At 0 the two
        still take turns.
      sharpness: :math:`\kappa`, in Ranger21 50; default infinite.
      mu_dtype: dtype of the momenta, default that of the parameters. The second moments
        are kept in float32 or wider.

    Returns:
      The transform. It needs ``params`` in ``update``, for their dtypes.

    Raises:
      ValueError: if ``params`` is missing, or a hyperparameter is not one number or out
        of range.

    Example:
      The sign of a step follows the average that is newer:

      >>> direction, w = scale_by_pnm(b1=0.0), jnp.zeros(1)
      >>> state = direction.init(w)
      >>> for g in (1.0, 1.0, 0.0, 0.0):
      ...     u, state = direction.update(jnp.full(1, g), state, w)
      ...     print(f"{u[0]:.3f}", end=" ")
      0.894 0.447 -0.548 0.000

    References:
      Xie et al., `Positive-Negative Momentum: Manipulating Stochastic Gradient Noise to
      Improve Generalization <https://arxiv.org/abs/2103.17182>`_, 2021

      Wright and Demeure, `Ranger21: a synergistic deep learning optimizer
      <https://arxiv.org/abs/2106.13731>`_, 2021: the softened denominator

    Differences:
      Ranger21's code has a boolean in the place of :math:`\beta_0`, and the decay of
      the second moment in that of :math:`\beta_0` under the root.
    """

    def rule(
        h: Any,
        g: jax.Array,
        w: jax.Array,
        odd: jax.Array,
        even: jax.Array,
        nu: jax.Array,
        largest: jax.Array,
    ) -> tuple[jax.Array, ...]:
        first = h.t % 2 == 1
        square = jnp.square(h.b1)
        new, other = jnp.where(first, odd, even), jnp.where(first, even, odd)
        new = square * new + (1 - square) * g
        nu = h.b2 * nu + (1 - h.b2) * jnp.square(g)
        largest = jnp.maximum(largest, nu)
        noise = jnp.sqrt(jnp.square(1 + h.negative) + jnp.square(h.negative))
        mixed = ((1 + h.negative) * new - h.negative * other) / noise
        # What a traced b2 above 1 makes negative has no root.
        root = jnp.sqrt(jnp.maximum(safe_divide(largest, 1 - h.b2**h.t), 0)) + h.eps
        soft = jnp.logaddexp(0, h.sharpness * root) / h.sharpness
        root = jnp.where(jnp.isinf(h.sharpness), root, soft)
        odd, even = jnp.where(first, new, odd), jnp.where(first, even, new)
        return safe_divide(mixed, (1 - h.b1**h.t) * root), odd, even, nu, largest

    return leafwise(
        "scale_by_pnm",
        rule,
        ScaleByPNMState,
        (mu_dtype, mu_dtype, WIDE, WIDE),
        {
            "[0, 1)": dict(b1=b1, b2=b2),
            "[0, inf)": dict(eps=eps, negative=negative),
            "(0, inf]": dict(sharpness=sharpness),
        },
    )
