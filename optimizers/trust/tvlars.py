"""TVLARS: LARS without a warm-up, by a ratio that begins high and falls."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.trust.layers import Denominator, layerwise_momentum
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.select import Where
from gnomon.parameters.trees import safe_divide
from gnomon.parameters.units import Rules

__all__ = ["tvlars"]

RECOMMENDED = {
    "tvlars": dict(
        learning_rate=0.3,
        weight_decay=5e-4,
        momentum=0.9,
        trust=0.001,
        alpha=0.1,
        rate=0.01,
    )
}
# Beyond it exp overflows, or changes nothing.
_STEEPEST = 60.0


def tvlars(
    learning_rate: ScalarOrSchedule,
    *,
    weight_decay: ScalarOrSchedule = 5e-4,
    momentum: jax.typing.ArrayLike = 0.9,
    trust: jax.typing.ArrayLike = 1e-3,
    alpha: jax.typing.ArrayLike = 0.1,
    rate: jax.typing.ArrayLike = 1e-3,
    delay: jax.typing.ArrayLike = 0.0,
    floor: jax.typing.ArrayLike = 0.0,
    nesterov: bool = False,
    rule: Denominator = "sum",
    constrained: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""TVLARS: time-varying LARS.

    LARS whose ratio is multiplied by a function of the step :math:`t = 1, 2, \dots`,

    .. math::
      r = c\, \phi_t \frac{\|w\|}{\|g + \lambda w\|}, \qquad
      \phi_t = \frac{1}{\alpha + e^{\rho (t - d)}} + \phi_{\min}

    which falls like a sigmoid, from nearly :math:`1 / \alpha` to :math:`\phi_{\min}`,
    around the step :math:`d + \ln(\alpha) / \rho`. All else is as in
    :func:`gnomon.optimizers.lars`. Leaves without a ratio are not scaled by
    :math:`\phi`.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      weight_decay: weight decay :math:`\lambda`, a scalar or a schedule, default 5e-4.
      momentum: decay of the momentum, default 0.9.
      trust: the coefficient :math:`c`, default 1e-3.
      alpha: :math:`\alpha`, the inverse of the largest factor, default 0.1.
      rate: the rate :math:`\rho` of the fall a step, default 1e-3.
      delay: :math:`d`, the steps before the fall, default 0.
      floor: :math:`\phi_{\min}`, default 0.
      nesterov: whether the momentum looks ahead, default False.
      rule: the denominator, ``"sum"`` as above, or that of the ``"paper"`` of LARS.
      constrained: which leaves have a ratio and decay: a regex found in the path, or a
        mask (a tree of bools, a prefix, or a function of the parameters); default every
        leaf that has units.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``rule`` is unknown, or ``constrained`` matches no leaf.

    Example:
      >>> optimizer = tvlars(1.0, weight_decay=0.0, momentum=0.0, rate=1.0, delay=3.0)
      >>> w = {"kernel": jnp.ones((4, 1))}
      >>> state = optimizer.init(w)
      >>> for _ in range(5):
      ...     updates, state = optimizer.update(w, state, w)
      ...     print(f"{updates['kernel'][0, 0]:.4f}", end=" ")
      -0.0042 -0.0021 -0.0009 -0.0004 -0.0001

    References:
      Do et al., `Revisiting LARS for Large Batch Training Generalization of Neural
      Networks <https://arxiv.org/abs/2309.14053>`_, 2023

    Differences:
      The authors' code has neither :math:`d` nor :math:`\phi_{\min}`, fixes
      :math:`\alpha` at 0.1, and cuts both norms at 10, which is not done here. The
      paper's text was not read; the function is that of its code and of notes on it.
    """

    def factor(h: Any) -> jax.Array:
        fallen = jnp.exp(-jnp.clip(h.rate * (h.t - h.delay), -_STEEPEST, _STEEPEST))
        return jnp.asarray(
            h.trust * (safe_divide(fallen, 1 + h.alpha * fallen) + h.floor)
        )

    numbers: dict[str, dict[str, Any]] = {
        "[0, 1)": dict(momentum=momentum),
        "[0, inf)": dict(
            weight_decay=weight_decay,
            trust=trust,
            alpha=alpha,
            rate=rate,
            delay=delay,
            floor=floor,
        ),
    }
    return layerwise_momentum(
        "tvlars",
        numbers,
        learning_rate,
        factor,
        nesterov=nesterov,
        rule=rule,
        constrained=constrained,
        rules=rules,
        stacked=stacked,
    )
