"""Update floor: a direction is never short against its weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.diagnostics import means, note
from gnomon.optimizers.mechanisms.leafwise import leafwise
from gnomon.optimizers.mechanisms.sets import View, norm_plan
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules, unit_norm

__all__ = ["UpdateFloorState", "update_floor"]

FLOORED = means("floored", "share of the norms that the floor raised")


class UpdateFloorState(NamedTuple):
    """State of :func:`update_floor`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]


def update_floor(
    floor: ScalarOrSchedule = 0.35,
    *,
    constrained: Where | None = None,
    view: View = "layer",
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Lengthens the updates of layers, or of units, that are short.

    .. math::
      u \leftarrow u\, \frac{\tau \|w\|}{\|u\|} \quad \text{where} \quad
      \|u\| < \tau \|w\|

    It stands behind a direction and before the learning rate :math:`\eta`, so that
    weights turn by at least about :math:`\eta \tau` a step. A zero update has no
    direction and stays zero. Anything may follow it: a decay, the norm control of
    :func:`gnomon.optimizers.radial_brake`.

    Args:
      floor: the smallest ratio :math:`\tau` of update and weight, a scalar or a
        schedule, default 0.35.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default every leaf that has units.
      view: one norm a "layer" (Frobenius), the default, or a "unit".
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It needs ``params`` in ``update``. The share of norms that it
      raised is ``floored`` in :func:`gnomon.optimizers.observed`.

    Raises:
      ValueError: if ``params`` is missing, ``floor`` is not one number or out of range,
        ``view`` is unknown, or ``constrained`` matches no leaf.

    Example:
      The second unit's update is a tenth of its weights, and is raised to a half:

      >>> raise_short, w = update_floor(0.5, view="unit"), jnp.array([[1.0, 2.0]])
      >>> u = jnp.array([[0.8, -0.2]])
      >>> print(raise_short.update(u, raise_short.init(w), w)[0])
      [[ 0.8 -1. ]]

    References:
      Jordan et al., `modded-nanogpt, optimization track
      <https://github.com/KellerJordan/modded-nanogpt>`_, 2026: the floor of a matrix,
      and the floor of each of its rows, at 0.35 to 0.38.

    Differences:
      The records floor hidden matrices that were orthogonalized, and fix their norms
      afterwards. They were read as described, not run.
    """

    def rule(h: Any, u: jax.Array, w: jax.Array) -> jax.Array:
        norm = unit_norm(u, h.axes)
        least = h.floor * unit_norm(w, h.axes)
        short = (norm > 0) & (norm < least)
        note(FLOORED, lambda: (jnp.sum(short), short.size))
        return jnp.where(short, u * (least / jnp.where(norm > 0, norm, 1)), u)

    return leafwise(
        "update_floor",
        rule,
        UpdateFloorState,
        (),
        {"[0, inf)": dict(floor=floor)},
        plan=norm_plan(constrained, view, rules, stacked),
        stacked=stacked,
    )
