"""Adam-atan2: Adam with an arc tangent in place of the division and its epsilon."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.descent import Decay, descend
from gnomon.optimizers.mechanisms.leafwise import WIDE, Hyperparameters, leafwise
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.trees import safe_divide

__all__ = ["ScaleByAdamAtan2State", "adam_atan2", "scale_by_adam_atan2"]

RECOMMENDED = {
    "adam_atan2": dict(
        learning_rate=3e-3, b1=0.9, b2=0.99, a=1.0, b=1.0, weight_decay=0.01
    )
}


class ScaleByAdamAtan2State(NamedTuple):
    """State of :func:`scale_by_adam_atan2`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, in mu_dtype or the dtype of the parameters
    nu: optax.Updates  # second moment, in float32 or wider


def scale_by_adam_atan2(
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.99,
    *,
    a: jax.typing.ArrayLike = 1.0,
    b: jax.typing.ArrayLike = 1.0,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`adam_atan2`, ascent-signed and before the learning rate.

    Args:
      b1: see :func:`adam_atan2`, as all arguments.
      b2: decay of the second moment.
      a: factor on the arc tangent.
      b: factor on the root of the second moment.
      mu_dtype: dtype of the first moment.

    Returns:
      The transform. It needs ``params`` in ``update``, for their dtypes.

    Raises:
      ValueError: if ``params`` is missing, or a hyperparameter is not one number or out
        of range.
    """

    def rule(
        h: Hyperparameters, g: jax.Array, w: jax.Array, mu: jax.Array, nu: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        mu = h.b1 * mu + (1 - h.b1) * g
        nu = h.b2 * nu + (1 - h.b2) * jnp.square(g)
        first = safe_divide(mu, 1 - h.b1**h.t)
        second = safe_divide(nu, 1 - h.b2**h.t)
        # Neither the root nor the arc tangent has a derivative at zero.
        root = h.b * jnp.where(
            second > 0, jnp.sqrt(jnp.where(second > 0, second, 1)), 0
        )
        unseen = (first == 0) & (root == 0)
        angle = jnp.atan2(jnp.where(unseen, 0, first), jnp.where(unseen, 1, root))
        return h.a * angle, mu, nu

    numbers = {"[0, 1)": dict(b1=b1, b2=b2), "[0, inf)": dict(a=a, b=b)}
    slots = (mu_dtype, WIDE)
    return leafwise(
        "adam_atan2",
        rule,
        ScaleByAdamAtan2State,
        slots,
        numbers,
        # An arc tangent is no average, but nearly a line: the angle at equilibrium is
        # 1 % off at b = 1, and 7 % at b = 0.1.
        says=lambda now: dict(momentum=now["b1"]),
    )


def adam_atan2(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.99,
    a: jax.typing.ArrayLike = 1.0,
    b: jax.typing.ArrayLike = 1.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    decay: Decay = "scaled",
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam-atan2: Adam without an epsilon, exactly invariant to the loss's scale.

    .. math::
      m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
      v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
      w &\leftarrow (1 - \eta \lambda) w - \eta\, a \operatorname{atan2}\Big(
        \frac{m}{1 - \beta_1^t},\; b \sqrt{v / (1 - \beta_2^t)}\Big)

    A step is at most :math:`\eta a \pi / 2`. Where the first moment is small against
    the root of the second it is Adam's, :math:`a / b` times; at :math:`a = 4 / \pi` and
    :math:`b = 1` it is Adam's where they are equal, too.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moment, default 0.99.
      a: factor on the arc tangent, default 1.
      b: factor on the root of the second moment, default 1.
      weight_decay: decoupled weight decay :math:`\lambda`, a scalar or a schedule,
        default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      decay: the convention of weight decay, ``"scaled"`` as above, ``"independent"``
        of the learning rate, or ``"cautious"``, see
        :func:`gnomon.optimizers.descend`.
      stacked: regex of the leaves that stack layers along axis 0 (scanned layers), for
        a mask that is a function.
      mu_dtype: dtype of the first moment, default that of the parameters. The second
        moment is kept in float32 or wider.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or ``decay`` is unknown.

    Example:
      Adam divides by at least its epsilon, 1e-8; here gradients of 1e-12 are as good as
      any. The first step is :math:`\eta\, \pi / 4`:

      >>> import jax.numpy as jnp
      >>> from gnomon.optimizers import adamp  # Adam, on leaves without units
      >>> w, g = jnp.zeros(2), jnp.array([1.0, -3.0])
      >>> for optimizer in (adam_atan2(1.0), adamp(1.0)):
      ...     for scale in (1.0, 1e-12):
      ...         print(optimizer.update(scale * g, optimizer.init(w), w)[0].round(3))
      [-0.785  0.785]
      [-0.785  0.785]
      [-1.  1.]
      [-0.  0.]

    References:
      Everett et al., `Scaling Exponents Across Parameterizations and Optimizers
      <https://arxiv.org/abs/2407.05872>`_, 2024

    Differences:
      The PyTorch port adam-atan2-pytorch has :math:`a = 1.27`, about :math:`4 / \pi`.
      A gradient whose square is no number of float32, below 1e-23, counts for the first
      moment alone.
    """
    return optax.chain(
        scale_by_adam_atan2(b1, b2, a=a, b=b, mu_dtype=mu_dtype),
        descend(
            learning_rate,
            weight_decay,
            weight_decay_mask=weight_decay_mask,
            decay=decay,
            stacked=stacked,
            name="adam_atan2",
        ),
    )
