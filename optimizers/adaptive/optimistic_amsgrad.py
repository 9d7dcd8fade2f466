"""Optimistic AMSGrad: a step ahead, along a guess of the next gradient."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.diagnostics import mean_of, tells
from gnomon.optimizers.mechanisms.leafwise import WIDE, leafwise
from gnomon.parameters.checks import ScalarOrSchedule, require_choice
from gnomon.parameters.trees import safe_divide

__all__ = ["OptimisticAMSGradState", "optimistic_amsgrad"]

RECOMMENDED = {
    "optimistic_amsgrad": dict(learning_rate=1e-3, b1=0.9, b2=0.99, eps=1e-8)
}
Predictor = Literal["last", "none"]


@tells(
    "largest_surprise",
    "mean of the largest averaged squares of what a prediction missed",
    lambda state: mean_of(state.largest),
)
class OptimisticAMSGradState(NamedTuple):
    """State of :func:`optimistic_amsgrad`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, in the dtype of the parameters
    nu: optax.Updates  # mean square of what the prediction missed, float32 or wider
    largest: optax.Updates  # its largest value so far, in float32 or wider
    predicted: optax.Updates  # this step's gradient as predicted; zero at first
    ahead: optax.Updates  # how far the weights are ahead, in float32 or wider


def optimistic_amsgrad(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    floor: jax.typing.ArrayLike = 0.0,
    predictor: Predictor = "last",
) -> optax.GradientTransformationExtraArgs:
    r"""Optimistic AMSGrad (OPT-AMSGrad).

    Weights :math:`\tilde w` take AMSGrad's steps, and the weights :math:`w` that a
    gradient is asked for are one step ahead of them. With :math:`p` the prediction of
    this gradient, :math:`p'` that of the next, and :math:`h` the momentum with the
    prediction in it,

    .. math::
      h &= \beta_1 m + (1 - \beta_1) p', \qquad
      m \leftarrow \beta_1 m + (1 - \beta_1) g \\
      v &\leftarrow \beta_2 v + (1 - \beta_2) (g - p)^2, \qquad
      \hat v \leftarrow \max(\hat v, v), \qquad
      s = \eta\, \frac{\sqrt{1 - \beta_2^t}}{1 - \beta_1^t} \\
      \tilde w &\leftarrow \tilde w - s\, \frac{m}{\sqrt{\hat v} + \epsilon}, \qquad
      w = \tilde w - s\, \frac{h}{\sqrt{\hat v} + \epsilon}

    where the right side of :math:`h` is that of before this step. A gradient that was
    predicted well adds nothing to :math:`\hat v`.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule; 1e-3 in the
        authors' examples.
      b1: decay of the momentum, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to its root, default 1e-8.
      floor: the smallest root of :math:`\hat v`, default 0: where all predictions were
        right, only :math:`\epsilon` bounds a step.
      predictor: ``"last"``, the default: the next gradient is this one, so that
        :math:`h = m`; or ``"none"``, in which :math:`p = 0` and nothing runs ahead:
        AMSGrad.

    Returns:
      The optimizer. It needs ``params`` in ``update``, for their dtypes. It has no
      weight decay; the authors add it to the gradient, by
      ``optax.add_decayed_weights`` before it.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or ``predictor`` is unknown.

    Example:
      A steady gradient is a surprise once:

      >>> optimizer, w = optimistic_amsgrad(0.1, b2=0.99), jnp.zeros(1)
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(jnp.full(1, 2.0), state, w)
      ...     print(f"{state.largest[0]:.3f}", end=" ")
      0.040 0.040 0.040

    References:
      Wang et al., `An Optimistic Acceleration of AMSGrad for Nonconvex Optimization
      <https://arxiv.org/abs/1903.01435>`_, 2019

    Differences:
      The paper extrapolates the next gradient from the last few, and its released code
      weights; neither is here. The corrections of bias in :math:`s` are the code's. The
      paper's text was not read.
    """
    require_choice("predictor", predictor, Predictor)

    def rule(
        h: Any,
        g: jax.Array,
        w: jax.Array,
        mu: jax.Array,
        nu: jax.Array,
        largest: jax.Array,
        predicted: jax.Array,
        ahead: jax.Array,
    ) -> tuple[jax.Array, ...]:
        guess = g if predictor == "last" else jnp.zeros_like(g)
        optimistic = h.b1 * mu + (1 - h.b1) * guess
        mu = h.b1 * mu + (1 - h.b1) * g
        nu = h.b2 * nu + (1 - h.b2) * jnp.square(g - predicted)
        largest = jnp.maximum(largest, nu)
        # What a traced b2 above 1 makes negative has no root.
        corrected = jnp.sqrt(jnp.maximum(1 - h.b2**h.t, 0))
        rate = safe_divide(h.learning_rate * corrected, 1 - h.b1**h.t)
        root = jnp.maximum(jnp.sqrt(largest), h.floor) + h.eps
        if predictor == "none":
            optimistic = jnp.zeros_like(mu)
        new = -rate * safe_divide(optimistic, root)
        step = new - ahead - rate * safe_divide(mu, root)
        return step, mu, nu, largest, guess, new

    return leafwise(
        "optimistic_amsgrad",
        rule,
        OptimisticAMSGradState,
        (None, WIDE, WIDE, None, WIDE),
        {
            "[0, 1)": dict(b1=b1, b2=b2),
            "[0, inf)": dict(learning_rate=learning_rate, eps=eps, floor=floor),
        },
    )
