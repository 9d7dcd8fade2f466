"""A tail average: the last update ends near the average of the weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.leafwise import WIDE, leafwise

__all__ = ["TailAverageState", "tail_average"]


class TailAverageState(NamedTuple):
    """State of :func:`tail_average`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    average: optax.Params  # of the weights, in float32 or wider


def tail_average(
    steps: jax.typing.ArrayLike,
    *,
    horizon: jax.typing.ArrayLike = 150.0,
    blend: jax.typing.ArrayLike = 0.6,
) -> optax.GradientTransformationExtraArgs:
    r"""Moves the weights to their average, at one update, the last.

    With :math:`w_t` the weights after update :math:`t`, and :math:`h` the horizon,

    .. math::
      a_1 = w_1, \qquad a_t = a_{t-1} + (w_t - a_{t-1}) / h, \qquad
      w_T \leftarrow w_T + b\, (a_T - w_T)

    It stands last in a chain, behind the learning rate, and leaves all other updates as
    they are, to the bit.

    Args:
      steps: :math:`T`, the number of the update that ends at the average, from 1.
      horizon: :math:`h \ge 1`, over how many updates, default 150.
      blend: :math:`b`, from 0 to 1, default 0.6; all the way the average lags.

    Returns:
      The transform. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, or a number is not one number or out of
        range.

    Example:
      >>> optimizer = optax.chain(optax.sgd(1.0), tail_average(3, horizon=2, blend=1))
      >>> w = jnp.array([0.0])
      >>> state = optimizer.init(w)
      >>> for _ in range(3):
      ...     updates, state = optimizer.update(-jnp.ones(1), state, w)
      ...     w = w + updates
      >>> print(w)  # 3, 2 and 1 in the proportions 1/2, 1/4, 1/4
      [2.25]

    References:
      Jordan et al., `modded-nanogpt, optimization track
      <https://github.com/KellerJordan/modded-nanogpt>`_, 2026: at the last step, with
      a horizon of 150 and a blend of 0.6

    Differences:
      The record's average begins some thousand updates later, which after five horizons
      makes no difference. It was read as described, not run.
    """

    def rule(
        h: Any, u: jax.Array, w: jax.Array, average: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        moved = w + u
        weight = jnp.where(h.t == 1, 1, 1 / jnp.maximum(h.horizon, 1))
        average = average + weight * (moved - average)
        last = u + h.blend * (average - moved)
        return jnp.where(h.t == h.steps, last, u), average

    return leafwise(
        "tail_average",
        rule,
        TailAverageState,
        (WIDE,),
        {
            "[1, inf)": dict(steps=steps, horizon=horizon),
            "[0, 1]": dict(blend=blend),
        },
        plan=lambda tree: jax.tree.map(lambda _: (), tree),
    )
