"""EMA-Nesterov: gradients ahead of the weights, along the average of their moves."""

from typing import NamedTuple

import jax
import optax

from gnomon.optimizers.mechanisms.leafwise import WIDE, Hyperparameters, leafwise
from gnomon.parameters.checks import ScalarOrSchedule

__all__ = ["EmaNesterovState", "ema_nesterov"]


class EmaNesterovState(NamedTuple):
    """State of :func:`ema_nesterov`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    moves: optax.Updates  # average of the weights' moves, in float32 or wider


def ema_nesterov(
    lookahead: ScalarOrSchedule = 0.3, decay: jax.typing.ArrayLike = 0.99
) -> optax.GradientTransformationExtraArgs:
    r"""Moves the point where gradients are taken ahead of the weights.

    With :math:`u_t` the incoming updates, the learning rate included, :math:`x_t` the
    weights and :math:`y_t` the parameters of the training loop, where gradients are
    taken,

    .. math::
      x_t = y_{t-1} + u_t, \qquad
      d_t = \gamma d_{t-1} + (1 - \gamma)(x_t - x_{t-1}), \qquad
      y_t = x_t + \beta_t d_t

    It stands last in a chain, behind any optimizer: ``optax.chain(optax.adam(1e-3),
    ema_nesterov())``. A schedule of :math:`\beta` in proportion to that of the learning
    rate, 0 at first and at the end, is what records run with; where it is 0 the
    parameters are the weights, and evaluations are of these.

    Args:
      lookahead: :math:`\beta`, a scalar or a schedule of the updates made before this
        one, default 0.3.
      decay: :math:`\gamma`, default 0.99.

    Returns:
      The transform. It needs no ``params``.

    Raises:
      ValueError: if a number is not one number or out of range.

    Example:
      >>> import jax.numpy as jnp
      >>> ahead = ema_nesterov(1.0, decay=0.5)
      >>> u, state = jnp.array([-1.0]), ahead.init(jnp.array([0.0]))
      >>> for _ in range(3):
      ...     moved, state = ahead.update(u, state)
      ...     print(f"{moved[0]:.3f}", end=" ")
      -1.500 -2.000 -2.500

    References:
      `EMA-Nesterov <https://arxiv.org/abs/2605.25395>`_, 2026

    Differences:
      The paper's text was not read; the rule is that of its author's entry in the
      optimization track of modded-nanogpt, which moves the weights ahead before each
      gradient, and here behind each update.
    """

    def rule(
        h: Hyperparameters, u: jax.Array, _: None, moves: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # The weights were behind the parameters by the last lookahead.
        move = u + h.before * moves
        moves = h.decay * moves + (1 - h.decay) * move
        return u + h.lookahead * moves, moves

    def before(count: jax.Array) -> jax.typing.ArrayLike:
        # At the first update nothing has moved.
        return lookahead(count - 1) if callable(lookahead) else lookahead

    shifted = before if callable(lookahead) else lookahead
    return leafwise(
        "ema_nesterov",
        rule,
        EmaNesterovState,
        (WIDE,),
        {
            "[0, inf)": dict(lookahead=lookahead, before=shifted),
            "[0, 1)": dict(decay=decay),
        },
        plan=lambda tree: jax.tree.map(lambda _: (), tree),
        needs_params=False,
    )
