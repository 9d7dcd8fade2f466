"""SGDP: momentum SGD without the radial part of its step on scale-invariant weights."""

from typing import NamedTuple

import jax
import optax

from gnomon.optimizers.mechanisms.descent import descend
from gnomon.optimizers.mechanisms.leafwise import Hyperparameters, leafwise
from gnomon.optimizers.mechanisms.projection import project_and_decay, radial_part
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.trees import safe_divide
from gnomon.parameters.units import Rules

__all__ = ["ScaleBySgdpState", "scale_by_sgdp", "sgdp"]

RECOMMENDED = {
    "sgdp": dict(
        learning_rate=0.1,
        momentum=0.9,
        nesterov=True,
        weight_decay=1e-5,
        delta=0.1,
        wd_ratio=0.1,
    )
}


class ScaleBySgdpState(NamedTuple):
    """State of :func:`scale_by_sgdp`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    trace: optax.Updates  # momentum, in accumulator_dtype or that of the parameters


def scale_by_sgdp(
    momentum: jax.typing.ArrayLike = 0.0,
    dampening: jax.typing.ArrayLike = 0.0,
    *,
    delta: jax.typing.ArrayLike = 0.1,
    wd_ratio: jax.typing.ArrayLike = 0.1,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    nesterov: bool = False,
    eps: jax.typing.ArrayLike = 1e-8,
    project_buffer: bool = False,
    rules: Rules | None = None,
    stacked: str | None = None,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    """The direction of :func:`sgdp`, ascent-signed and before the learning rate.

    Weight decay is part of it because its rate depends on the projection.

    Args:
      momentum: see :func:`sgdp`, as all arguments.
      dampening: damping of the gradient in the momentum.
      delta: threshold of the gradient test.
      wd_ratio: factor on weight decay where the test passed.
      weight_decay: decoupled weight decay, a scalar or a schedule.
      weight_decay_mask: which leaves decay.
      nesterov: look ahead by one step of momentum.
      eps: guard of the norms.
      project_buffer: store the projected momentum.
      rules: ordered ``(regex, axes)`` pairs.
      stacked: regex of the leaves that stack layers along axis 0.
      accumulator_dtype: dtype of the momentum.

    Returns:
      The transform. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or a rule matches no leaf.
    """

    def rule(
        h: Hyperparameters, g: jax.Array, w: jax.Array, trace: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        trace = h.momentum * trace + (1 - h.dampening) * g
        p = g + h.momentum * trace if nesterov else trace
        radial = radial_part(
            p, g, w, h.axes, delta=h.delta, wd_ratio=h.wd_ratio, eps=h.eps
        )
        rate = safe_divide(h.weight_decay, 1 - h.momentum)
        if project_buffer and not nesterov:
            trace = p - radial.coefficient * w
        return project_and_decay(p, w, radial, rate), trace

    sizes = dict(delta=delta, wd_ratio=wd_ratio, weight_decay=weight_decay, eps=eps)
    return leafwise(
        "sgdp",
        rule,
        ScaleBySgdpState,
        (accumulator_dtype,),
        {
            "[0, 1)": dict(momentum=momentum),
            "[0, 1]": dict(dampening=dampening),
            "[0, inf)": sizes,
        },
        weight_decay_mask=weight_decay_mask,
        rules=rules,
        stacked=stacked,
    )


def sgdp(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: jax.typing.ArrayLike = 0.0,
    dampening: jax.typing.ArrayLike = 0.0,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    nesterov: bool = False,
    eps: jax.typing.ArrayLike = 1e-8,
    delta: jax.typing.ArrayLike = 0.1,
    wd_ratio: jax.typing.ArrayLike = 0.1,
    project_buffer: bool = False,
    rules: Rules | None = None,
    stacked: str | None = None,
    accumulator_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""SGDP: momentum SGD that does not grow the norm of scale-invariant weights.

    .. math::
      b &\leftarrow \mu b + (1 - \tau) g, \qquad
      p = b \;\text{ or, with Nesterov, }\; p = g + \mu b \\
      w &\leftarrow \Big(1 - \frac{\eta \lambda \rho}{1 - \mu}\Big) w
        - \eta\, (p - \Pi^r_w(p))

    The radial part :math:`\Pi^r_w(p)` is removed, and :math:`\rho` is ``wd_ratio``
    instead of 1, where the raw gradient is nearly orthogonal to the weight; the test is
    that of :func:`gnomon.optimizers.adamp`. Leaves without units (biases, scales, rank
    0 and 1) are never projected. The buffer :math:`b` starts at zero.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule.
      momentum: decay :math:`\mu` of the momentum, below 1, default 0.
      dampening: :math:`\tau`, applied to every gradient, default 0.
      weight_decay: decoupled weight decay :math:`\lambda`, a scalar or a schedule,
        default 0. It is divided by :math:`1 - \mu`, so 1e-5 at momentum 0.9 acts as
        1e-4 does elsewhere.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      nesterov: look ahead by one step of momentum.
      eps: guard of the norms in the projection, default 1e-8.
      delta: threshold of the gradient test, default 0.1.
      wd_ratio: factor on weight decay where the test passed, default 0.1.
      project_buffer: store the projected direction as the momentum, see Differences.
      rules: ordered ``(regex, axes)`` pairs that override which axes form a unit, see
        :func:`gnomon.parameters.units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0 (scanned layers); each
        layer is then tested on its own.
      accumulator_dtype: dtype of the momentum, default that of the parameters.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or a rule matches no leaf.

    Example:
      A loss that depends on the direction of ``w`` alone. Momentum SGD would end at
      norm 2.80:

      >>> import jax, jax.numpy as jnp, optax
      >>> target = jnp.array([[1.0], [0.0]])
      >>> loss = lambda w: -(w * target).sum() / jnp.linalg.norm(w)
      >>> optimizer = sgdp(0.02, momentum=0.9)
      >>> w = jnp.array([[-0.8], [0.6]])
      >>> state, update = optimizer.init(w), jax.jit(optimizer.update)
      >>> for _ in range(100):
      ...     updates, state = update(jax.grad(loss)(w), state, w)
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"loss {loss(w):.3f}, norm {jnp.linalg.norm(w):.3f}")
      loss -1.000, norm 1.115

    References:
      Heo et al., `AdamP: Slowing Down the Slowdown for Momentum Optimizers on
      Scale-invariant Weights <https://arxiv.org/abs/2006.08217>`_, 2021

    Differences:
      In the authors' package, version 0.3.0, without Nesterov the direction is the
      buffer itself and is projected in place, so the stored momentum loses its radial
      part too. The paper keeps the momentum; so does this, and ``project_buffer=True``
      gives the package's trajectory. As there, weight decay is divided by
      :math:`1 - \mu`, which is not in the paper. There a unit is a row of axis 0; here
      it is an output unit wherever Flax stores it.
    """
    return optax.chain(
        scale_by_sgdp(
            momentum,
            dampening,
            delta=delta,
            wd_ratio=wd_ratio,
            weight_decay=weight_decay,
            weight_decay_mask=weight_decay_mask,
            nesterov=nesterov,
            eps=eps,
            project_buffer=project_buffer,
            rules=rules,
            stacked=stacked,
            accumulator_dtype=accumulator_dtype,
        ),
        descend(learning_rate),
    )
