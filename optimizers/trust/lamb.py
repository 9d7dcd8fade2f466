"""LAMB: Adam's direction, with a step as long as a layer's weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.descent import descend
from gnomon.optimizers.mechanisms.leafwise import WIDE, leafwise
from gnomon.optimizers.mechanisms.moments import adam_step
from gnomon.optimizers.trust.layers import trust_ratio, trusted_layers
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules, unit_norm

__all__ = ["LambState", "lamb"]

RECOMMENDED = {
    "lamb": dict(learning_rate=0.01, b1=0.9, b2=0.99, eps=1e-6, weight_decay=0.01)
}


class LambState(NamedTuple):
    """State of the direction of :func:`lamb`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    mu: optax.Updates  # first moment, in mu_dtype or the dtype of the parameters
    nu: optax.Updates  # second moment, in float32 or wider


def lamb(
    learning_rate: ScalarOrSchedule,
    *,
    b1: jax.typing.ArrayLike = 0.9,
    b2: jax.typing.ArrayLike = 0.999,
    eps: jax.typing.ArrayLike = 1e-6,
    weight_decay: ScalarOrSchedule = 0.0,
    smallest: jax.typing.ArrayLike = 0.0,
    largest: jax.typing.ArrayLike = float("inf"),
    constrained: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""LAMB: layer-wise adaptive moments for batch training.

    .. math::
      m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
      v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
      u &= \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}
        + \lambda w, \qquad
      w \leftarrow w - \eta\, \frac{\phi(\|w\|)}{\|u\|}\, u

    with norms over a whole leaf, or a layer of one that stacks several, and
    :math:`\phi(z) = \min(\max(z, \gamma_l), \gamma_u)`, by default :math:`z` itself.
    The ratio is 1 where either norm is zero. Biases and gains have no ratio and do not
    decay: their steps are Adam's.

    Args:
      learning_rate: step size :math:`\eta`, a scalar or a schedule: the length of a
        layer's step in units of that of its weights.
      b1: decay of the first moment, default 0.9.
      b2: decay of the second moment, default 0.999.
      eps: added to the root of the second moment, default 1e-6.
      weight_decay: weight decay :math:`\lambda`, a scalar or a schedule, default 0.
      smallest: the least norm :math:`\gamma_l` that weights count for, default 0.
      largest: the largest norm :math:`\gamma_u` that weights count for, default any.
      constrained: which leaves have a ratio and decay: a regex found in the path, or a
        mask (a tree of bools, a prefix, or a function of the parameters); default every
        leaf that has units.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has a
        ratio of its own.
      mu_dtype: dtype of the first moment, default that of the parameters. The second is
        kept in float32 or wider.

    Returns:
      The optimizer. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or ``constrained`` matches no leaf.

    Example:
      >>> optimizer = lamb(0.1)
      >>> w = {"kernel": jnp.array([[3.0], [4.0]]), "bias": jnp.ones(1)}
      >>> updates, _ = optimizer.update(w, optimizer.init(w), w)
      >>> print(f"{jnp.linalg.norm(updates['kernel']):.2f} {updates['bias'][0]:.2f}")
      0.50 -0.10

    References:
      You et al., `Large Batch Optimization for Deep Learning: Training BERT in 76
      minutes <https://arxiv.org/abs/1904.00962>`_, 2019

    Differences:
      It is written here because ``optax.lamb`` has a mask for the decay and none for
      the ratio, which it takes over all leaves; on leaves with units the two are the
      same. Other ports leave out the bias corrections or cut norms at 10.
    """

    def rule(
        h: Any, g: jax.Array, w: jax.Array, mu: jax.Array, nu: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        u, mu, nu = adam_step(g, mu, nu, h.b1, h.b2, h.eps, h.t)
        if h.axes.reduce:
            u = u + h.weight_decay * w
            norm = unit_norm(w, h.axes)
            # A zero weight stays without a ratio, whatever the least norm.
            norm = jnp.where(norm > 0, jnp.clip(norm, h.smallest, h.largest), 0)
            u = trust_ratio(norm, unit_norm(u, h.axes), jnp.ones_like(norm)) * u
        return u, mu, nu

    numbers: dict[str, dict[str, Any]] = {
        "[0, 1)": dict(b1=b1, b2=b2),
        "[0, inf)": dict(eps=eps, weight_decay=weight_decay, smallest=smallest),
        "[0, inf]": dict(largest=largest),
    }
    direction = leafwise(
        "lamb",
        rule,
        LambState,
        (mu_dtype, WIDE),
        numbers,
        plan=trusted_layers(constrained, rules, stacked),
        stacked=stacked,
    )
    return optax.chain(direction, descend(learning_rate, name="lamb"))
