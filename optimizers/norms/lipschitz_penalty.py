"""Lipschitz penalty: the gradient of the layers' bounds, beside that of the loss."""

from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.leafwise import leafwise
from gnomon.optimizers.mechanisms.sets import norm_plan
from gnomon.parameters.checks import ScalarOrSchedule, require_choice, require_within
from gnomon.parameters.gram import gram_bound
from gnomon.parameters.matrices import as_matrices, unsharded
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules

__all__ = ["LipschitzPenaltyState", "add_lipschitz_penalty"]

Penalty: TypeAlias = Literal["excess", "log"]


class LipschitzPenaltyState(NamedTuple):
    """State of :func:`add_lipschitz_penalty`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]


def add_lipschitz_penalty(
    rate: ScalarOrSchedule,
    *,
    penalty: Penalty = "excess",
    target: jax.typing.ArrayLike = 1.0,
    steps: int = 5,
    constrained: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adds the gradient of a penalty on the spectral norms of layers.

    .. math::
      g \leftarrow g + \rho\, \nabla_W \sum_l \max(\bar\sigma_l - \tau, 0)
      \qquad \text{or} \qquad
      g \leftarrow g + \rho\, \nabla_W \sum_l \log \bar\sigma_l

    with :math:`\bar\sigma` the bound of Gram iteration
    (`gnomon.parameters.gram.gram_bound`); the second is the gradient of the logarithm
    of the product of all layers. It stands before a direction. A zero weight has no
    penalty.

    Args:
      rate: :math:`\rho`, a scalar or a schedule.
      penalty: ``"excess"``, the first, the default, or ``"log"``.
      target: :math:`\tau`, the bound up to which nothing is added, default 1.
      steps: of Gram iteration, a whole number, default 5.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default every leaf that has units.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, ``penalty`` is unknown, or ``constrained`` matches no leaf.

    Example:
      >>> w = {"kernel": jnp.diag(jnp.array([3.0, 0.5]))}
      >>> add = add_lipschitz_penalty(0.1)
      >>> still = {"kernel": jnp.zeros((2, 2))}
      >>> print(add.update(still, add.init(w), w)[0]["kernel"].round(3))
      [[0.1 0. ]
       [0.  0. ]]

    References:
      Delattre et al., `Efficient Bound of Lipschitz Constant for Convolutional Layers
      by Gram Iteration <https://arxiv.org/abs/2305.16173>`_, 2023

    Differences:
      The paper's text was not read; the bound is that of its authors' code. A
      convolution is the matrix of its kernel, whose bound is not that of the operator.
    """
    require_choice("penalty", penalty, Penalty)
    require_within("[1, inf)", steps=steps, whole=True)

    def rule(h: Any, g: jax.Array, w: jax.Array) -> jax.Array:
        def total(w: jax.Array, target: jax.Array) -> jax.Array:
            matrices = as_matrices(w, h.axes)
            # A chosen leaf without units has no spectral norm.
            if matrices is None or not matrices.size:
                return jnp.zeros([], w.dtype)
            bounds = gram_bound(matrices, steps)
            if penalty == "excess":
                return jnp.sum(jnp.maximum(bounds - target, 0))
            return jnp.sum(jnp.log(jnp.where(bounds > 0, bounds, 1)))

        slope: jax.Array = unsharded(jax.grad(total), w, w, h.target)
        rate: jax.Array = h.rate
        return g + rate * slope

    return leafwise(
        "add_lipschitz_penalty",
        rule,
        LipschitzPenaltyState,
        (),
        {"[0, inf)": dict(rate=rate, target=target)},
        plan=norm_plan(constrained, "unit", rules, stacked),
        stacked=stacked,
    )
