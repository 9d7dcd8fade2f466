"""AdamP: Adam without the radial part of its step on scale-invariant weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon import kernels
from gnomon.kernels.adamp import explain, step
from gnomon.kernels.companding import Coded
from gnomon.optimizers.mechanisms.descent import descending
from gnomon.optimizers.mechanisms.fused import FusedTransformation
from gnomon.optimizers.mechanisms.leafwise import (
    WIDE,
    Hyperparameters,
    Leafwise,
    leafwise,
)
from gnomon.optimizers.mechanisms.projection import project_and_decay, radial_part
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.trees import safe_divide
from gnomon.parameters.units import Rules

__all__ = ["ScaleByAdamPState", "adamp", "scale_by_adamp"]

RECOMMENDED = {
    "adamp": dict(
        learning_rate=3e-3,
        b1=0.9,
        b2=0.99,
        eps=1e-8,
        weight_decay=0.01,
        delta=0.1,
        wd_ratio=0.1,
    )
}


class ScaleByAdamPState(NamedTuple):
    """State of :func:`scale_by_adamp`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, in mu_dtype or the dtype of the parameters
    nu: optax.Updates  # second moment, in float32 or wider


def scale_by_adamp(
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    *,
    delta: jax.typing.ArrayLike = 0.1,
    wd_ratio: jax.typing.ArrayLike = 0.1,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    nesterov: bool = False,
    rules: Rules | None = None,
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> Leafwise:
    """The direction of :func:`adamp`, ascent-signed and before the learning rate.

    Weight decay is part of it because its rate depends on the projection.

    Args:
      b1: see :func:`adamp`, as all arguments.
      b2: decay of the second moment.
      eps: added to the denominator, and guard of the norms.
      delta: threshold of the gradient test.
      wd_ratio: factor on weight decay where the test passed.
      weight_decay: decoupled weight decay, a scalar or a schedule.
      weight_decay_mask: which leaves decay.
      nesterov: look ahead by one step of momentum.
      rules: ordered ``(regex, axes)`` pairs.
      stacked: regex of the leaves that stack layers along axis 0.
      mu_dtype: dtype of the first moment.

    Returns:
      The transform. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or a rule matches no leaf.
    """

    def rule(
        h: Hyperparameters, g: jax.Array, w: jax.Array, mu: jax.Array, nu: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        # Adam's, as kernels.adam has it with both corrections factored out of the
        # denominator: the same but for the last bits.
        mu = h.b1 * mu + (1 - h.b1) * g
        nu = h.b2 * nu + (1 - h.b2) * g * g
        first = h.b1 * mu + (1 - h.b1) * g if nesterov else mu
        denominator = jnp.sqrt(safe_divide(nu, 1 - h.b2**h.t)) + h.eps
        # Zero only without eps, where no gradient was seen.
        p = safe_divide(first, (1 - h.b1**h.t) * denominator)
        radial = radial_part(
            p, g, w, h.axes, delta=h.delta, wd_ratio=h.wd_ratio, eps=h.eps
        )
        return project_and_decay(p, w, radial, h.weight_decay), mu, nu

    sizes = dict(eps=eps, delta=delta, wd_ratio=wd_ratio, weight_decay=weight_decay)
    return leafwise(
        "adamp",
        rule,
        ScaleByAdamPState,
        (mu_dtype, WIDE),
        {"[0, 1)": dict(b1=b1, b2=b2), "[0, inf)": sizes},
        weight_decay_mask=weight_decay_mask,
        rules=rules,
        stacked=stacked,
    )


def adamp(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-8,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    delta: jax.typing.ArrayLike = 0.1,
    wd_ratio: jax.typing.ArrayLike = 0.1,
    nesterov: bool = False,
    rules: Rules | None = None,
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
    implementation: kernels.Implementation | None = None,
) -> FusedTransformation:
    r"""AdamP: Adam that does not grow the norm of scale-invariant weights.

    .. math::
      m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
      v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
      p &= \frac{m}{1 - \beta_1^t} \Big/
        \Big(\sqrt{v / (1 - \beta_2^t)} + \epsilon\Big) \\
      w &\leftarrow (1 - \eta \lambda \rho)\, w - \eta\, (p - \Pi^r_w(p))

    The radial part :math:`\Pi^r_w(p)` is removed, and :math:`\rho` is ``wd_ratio``
    instead of 1, where the raw gradient is nearly orthogonal to the weight:
    :math:`|\cos(g_i, w_i)| < \delta / \sqrt{n_i}` for every output unit :math:`i` of
    the leaf, or else for the leaf as a whole. Leaves without units (biases, scales,
    rank 0 and 1) are never projected.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule; 1e-3 in the paper.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to the denominator after bias correction, and guard of the norms in the
        projection, default 1e-8.
      weight_decay: decoupled weight decay :math:`\lambda` per step and learning rate, a
        scalar or a schedule, default 0.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      delta: threshold of the gradient test, default 0.1.
      wd_ratio: factor on weight decay where the test passed, default 0.1.
      nesterov: use :math:`\beta_1 m + (1 - \beta_1) g` in place of :math:`m`.
      rules: ordered ``(regex, axes)`` pairs that override which axes form a unit, see
        :func:`gnomon.parameters.units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0 (scanned layers); each
        layer is then tested on its own.
      mu_dtype: dtype of the first moment, default that of the parameters. The second
        moment is kept in float32 or wider.
      implementation: how ``apply`` runs, ``"xla"``, ``"tpu"`` or ``"gpu"``; default the
        kernel where it is known to be faster, see :mod:`gnomon.kernels`.

    Returns:
      The optimizer. It needs ``params`` in ``update``, and has the fused entry point of
      :func:`gnomon.optimizers.apply_fused`. It reads two more extra args:
      ``shardings``, a tree of ``NamedSharding`` or a prefix of one, without which a
      kernel takes arrays to be on one device,
      and ``rounding_key``, a key that makes bfloat16 parameters round
      stochastically. A kernel rounds bfloat16 parameters once a step, where ``update``
      and ``optax.apply_updates`` round three times.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, a rule matches no leaf, or ``implementation`` cannot run.

    Example:
      A loss that depends on the direction of ``w`` alone; the norm, 1 at first, stays
      near 1 (Adam's ends at 1.77):

      >>> import jax, jax.numpy as jnp, optax
      >>> target = jnp.array([[1.0], [0.0]])
      >>> loss = lambda w: -(w * target).sum() / jnp.linalg.norm(w)
      >>> optimizer = adamp(0.05)
      >>> w = jnp.array([[-0.8], [0.6]])
      >>> state, update = optimizer.init(w), jax.jit(optimizer.update)
      >>> for _ in range(100):
      ...     updates, state = update(jax.grad(loss)(w), state, w)
      ...     w = optax.apply_updates(w, updates)
      >>> print(f"loss {loss(w):.3f}, norm {jnp.linalg.norm(w):.3f}")
      loss -1.000, norm 1.075

    References:
      Heo et al., `AdamP: Slowing Down the Slowdown for Momentum Optimizers on
      Scale-invariant Weights <https://arxiv.org/abs/2006.08217>`_, 2021

    Differences:
      The algorithm box of the paper has neither bias correction nor weight decay and
      tests the bare inner product; the two views, the test of all rows, ``wd_ratio``
      and the cosine follow the authors' package, version 0.3.0. There a unit is a row
      of axis 0; here it is an output unit wherever Flax stores it.
    """
    direction = scale_by_adamp(
        b1,
        b2,
        eps,
        delta=delta,
        wd_ratio=wd_ratio,
        weight_decay=weight_decay,
        weight_decay_mask=weight_decay_mask,
        nesterov=nesterov,
        rules=rules,
        stacked=stacked,
        mu_dtype=mu_dtype,
    )

    def kernel(
        h: Hyperparameters,
        g: jax.Array,
        w: jax.Array,
        mu: jax.Array | Coded,
        nu: jax.Array | Coded,
        **how: Any,
    ) -> tuple[jax.Array, jax.Array | Coded, jax.Array | Coded]:
        return step(
            w,
            g,
            mu,
            nu,
            reduce=h.axes.reduce,
            stack=h.axes.stack,
            nesterov=nesterov,
            **h.numbers,
            **how,
        )

    return descending(
        *("adamp", direction, learning_rate, kernel, explain, implementation),
        takes_codes=True,
    )
