"""AdaBelief: Adam whose second moment is that of the gradient's surprise."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.descent import Decay, descend
from gnomon.optimizers.mechanisms.leafwise import WIDE, Hyperparameters, leafwise
from gnomon.optimizers.mechanisms.moments import adam_direction
from gnomon.parameters.checks import ScalarOrSchedule

__all__ = ["ScaleByBeliefState", "adabelief", "scale_by_belief"]

RECOMMENDED = {
    "adabelief": dict(learning_rate=3e-3, b1=0.9, b2=0.99, eps=1e-16, weight_decay=0.01)
}


class ScaleByBeliefState(NamedTuple):
    """State of :func:`scale_by_belief`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, in mu_dtype or the dtype of the parameters
    nu: optax.Updates  # mean square of what it did not predict, in float32 or wider


def scale_by_belief(
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-16,
    *,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`adabelief`, ascent-signed and before the learning rate.

    Args:
      b1: see :func:`adabelief`, as all arguments.
      b2: decay of the second moment.
      eps: added to the second moment and to its root.
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
        nu = h.b2 * nu + (1 - h.b2) * jnp.square(g - mu) + h.eps
        return adam_direction(mu, nu, h.b1, h.b2, h.eps, h.t), mu, nu

    numbers = {"[0, 1)": dict(b1=b1, b2=b2), "[0, inf)": dict(eps=eps)}
    slots = (mu_dtype, WIDE)
    return leafwise(
        "adabelief",
        rule,
        ScaleByBeliefState,
        slots,
        numbers,
        says=lambda now: dict(momentum=now["b1"]),
    )


def adabelief(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-16,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    decay: Decay = "scaled",
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""AdaBelief: long steps where the average predicts the gradient well.

    .. math::
      m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
      v \leftarrow \beta_2 v + (1 - \beta_2) (g - m)^2 + \epsilon \\
      w &\leftarrow (1 - \eta \lambda) w - \eta\, \frac{m}{1 - \beta_1^t} \Big/
        \Big(\sqrt{v / (1 - \beta_2^t)} + \epsilon\Big)

    Under a constant gradient the first step is :math:`\eta / \beta_1`. Later steps grow
    as :math:`\beta_2^{-t/2}`, for ever less is surprising, up to
    :math:`\eta |g| / \sqrt{\epsilon / (1 - \beta_2)}`: this bound is what
    :math:`\epsilon` sets.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule; 1e-3 in the paper.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to the second moment at each step, and to its root, default 1e-16.
      weight_decay: decoupled weight decay :math:`\lambda`, a scalar or a schedule,
        default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      decay: the convention of weight decay, ``"scaled"`` as above, ``"independent"``
        of the learning rate, or ``"cautious"``, see
        :func:`gnomon.optimizers.descend`.
      stacked: regex of the leaves that stack layers along axis 0 (scanned layers), for
        a mask that is a function.
      mu_dtype: dtype of the first moment, default that of the parameters. The second is
        kept in float32 or wider: in float16 its :math:`\epsilon` is zero.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or ``decay`` is unknown.

    Example:
      The same gradient at every step:

      >>> import jax.numpy as jnp
      >>> optimizer, w = adabelief(1.0, b2=0.99), jnp.zeros(1)
      >>> state = optimizer.init(w)
      >>> for step in range(1, 101):
      ...     updates, state = optimizer.update(jnp.full(1, 0.3), state, w)
      ...     if step in (1, 10, 100):
      ...         print(f"{updates[0]:.2f}", end=" ")
      -1.11 -1.65 -6.20

    References:
      Zhuang et al., `AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed
      Gradients <https://arxiv.org/abs/2010.07468>`_, 2020

    Differences:
      ``optax.adabelief`` names the two places of :math:`\epsilon` apart, ``eps_root``
      and ``eps``, has no weight decay, and keeps :math:`v` in the dtype of the
      parameters. The authors' package rectifies the first steps by default; this, as
      their paper, does not.
    """
    return optax.chain(
        scale_by_belief(b1, b2, eps, mu_dtype=mu_dtype),
        descend(
            learning_rate,
            weight_decay,
            weight_decay_mask=weight_decay_mask,
            decay=decay,
            stacked=stacked,
            name="adabelief",
        ),
    )
