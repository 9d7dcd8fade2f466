"""Radial brake: of the growth of a norm that a step brings, a part is kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.leafwise import leafwise
from gnomon.optimizers.mechanisms.sets import View, norm_plan
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules, unit_norm

__all__ = ["RadialBrakeState", "radial_brake"]


class RadialBrakeState(NamedTuple):
    """State of :func:`radial_brake`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]


def radial_brake(
    outward: ScalarOrSchedule = 0.5,
    inward: ScalarOrSchedule = 1.0,
    *,
    constrained: Where | None = None,
    view: View = "layer",
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scales the weights that a step leads to, so that their norm changes by a part.

    With :math:`u` the incoming updates, the learning rate included, emits
    :math:`w' - w` for

    .. math::
      w' = \frac{\|w\| + s\, (\|w + u\| - \|w\|)}{\|w + u\|} (w + u), \qquad
      s = \begin{cases} s_{out} & \text{if } \|w + u\| > \|w\| \\
        s_{in} & \text{otherwise} \end{cases}

    The direction is that of :math:`w + u`. It stands last in a chain, or is followed
    by a decay: ``optax.chain(optax.adam(1e-3), radial_brake())``. With both parts 0
    norms stay as they are, as on :func:`gnomon.optimizers.constraints.fixed_norm`,
    which also remembers the first ones, so that rounding does not add up; with both 1
    nothing is changed, to the bit.

    Args:
      outward: the part :math:`s_{out}` of a growth that is kept, from 0 to 1, a scalar
        or a schedule, default 0.5.
      inward: the part :math:`s_{in}` of a loss that is kept, default 1.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default every leaf that has units.
      view: one norm a "layer" (Frobenius), the default, or a "unit".
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``view`` is unknown, or ``constrained`` matches no leaf.

    Example:
      >>> brake, w = radial_brake(), jnp.array([[3.0], [4.0]])
      >>> for by in (0.2, -0.2):  # norms of 6 and 4
      ...     u, _ = brake.update(by * w, brake.init(w), w)
      ...     print(f"{jnp.linalg.norm(w + u):.2f}", end=" ")
      5.50 4.00

    References:
      Jordan et al., `modded-nanogpt, optimization track
      <https://github.com/KellerJordan/modded-nanogpt>`_, 2026

      NVIDIA, `Emerging Optimizers
      <https://github.com/NVIDIA-NeMo/Emerging-Optimizers>`_, 2026: the formula and its
      defaults
    """

    def rule(h: Any, u: jax.Array, w: jax.Array) -> jax.Array:
        moved = w + u
        before, after = unit_norm(w, h.axes), unit_norm(moved, h.axes)
        part = jnp.where(after > before, h.outward, h.inward)
        norm = before + part * (after - before)
        braked = moved * (norm / jnp.where(after > 0, after, 1)) - w
        return jnp.where((part == 1) | (after == 0), u, braked)

    return leafwise(
        "radial_brake",
        rule,
        RadialBrakeState,
        (),
        {"[0, 1]": dict(outward=outward, inward=inward)},
        plan=norm_plan(constrained, view, rules, stacked),
        stacked=stacked,
    )
