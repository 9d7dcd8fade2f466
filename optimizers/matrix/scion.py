"""Scion: steps to the end of a ball in the norm of each layer."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.matrix.dual_norms import Method
from gnomon.optimizers.matrix.lmo import Norms, Reading, oracle
from gnomon.optimizers.mechanisms.descent import descend
from gnomon.parameters.checks import ScalarOrSchedule
from gnomon.parameters.units import Rules

__all__ = ["scion"]

RECOMMENDED = {
    "scion": dict(
        learning_rate=1e-3,
        momentum=0.9,
        hidden_radius=30.0,
        head_radius=1000.0,
        embedding_radius=30.0,
        vector_radius=1.0,
    )
}
BY_ROLE: Norms = {
    "embedding": "input",
    "hidden": "spectral",
    "head": "sign",
    "gain": "input",
    "bias": "input",
}


def scion(
    learning_rate: ScalarOrSchedule,
    *,
    momentum: jax.typing.ArrayLike = 0.9,
    hidden_radius: jax.typing.ArrayLike = 50.0,
    head_radius: jax.typing.ArrayLike = 3000.0,
    embedding_radius: jax.typing.ArrayLike = 50.0,
    vector_radius: jax.typing.ArrayLike = 1.0,
    constrained: bool = True,
    norms: Norms | None = None,
    method: Method = "newton_schulz",
    steps: int = 5,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Scion: stochastic conditional gradients with operator norms.

    .. math::
      m &\leftarrow \mu m + (1 - \mu) g \\
      w &\leftarrow (1 - \eta)\, w - \eta\, \rho\, \mathrm{lmo}(m)

    with the linear minimization oracle of the leaf's role, :func:`scale_by_lmo`:
    ``"spectral"`` for hidden matrices, ``"sign"`` for the head, and a root mean square
    of 1 for each row of an embedding and for biases and gains. Weights that begin in
    the ball of radius :math:`\rho` of their norm stay in it, for :math:`\eta \le 1`. A
    run has one rate for all widths, and radii that are tuned on a small model.

    Args:
      learning_rate: :math:`\eta`, a scalar or a schedule.
      momentum: :math:`\mu`, default 0.9; the paper's :math:`\alpha` is one minus it.
      hidden_radius: :math:`\rho` of hidden matrices, default 50.
      head_radius: :math:`\rho` of the head, default 3000.
      embedding_radius: :math:`\rho` of embeddings, default 50.
      vector_radius: :math:`\rho` of biases and gains, default 1.
      constrained: whether weights decay toward the ball's center. Otherwise
        :math:`w \leftarrow w - \eta \rho\, \mathrm{lmo}(m)`, and radii are rates.
        Default True.
      norms: other norms by role, see :func:`scale_by_lmo`; leaves of a role that has
        none step along their gradients. Default those above.
      method: how polar factors are found, see :func:`scale_by_lmo`, default
        ``"newton_schulz"``, whose spectral norms are up to 1.14: so is then the ball.
      steps: of that iteration, a whole number, default 5.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has a
        ball of its own.

    Returns:
      The optimizer. It needs ``params`` in ``update`` if it is constrained.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or a norm, a role or ``method`` is unknown.

    Example:
      Without a gradient's size, a step has the length of the rate times the radius:

      >>> optimizer = scion(0.01, hidden_radius=1.0, constrained=False)
      >>> w = {"kernel": jnp.zeros((4, 1))}
      >>> g = {"kernel": jnp.array([[3.0], [0.0], [0.0], [-4.0]])}
      >>> updates, _ = optimizer.update(g, optimizer.init(w), w)
      >>> print(*(f"{100 * u:.1f}" for u in updates["kernel"][::3, 0]))
      -0.3 0.4

    References:
      Pethick et al., `Training Deep Learning Models with Norm-Constrained LMOs
      <https://arxiv.org/abs/2502.07529>`_, 2025

    Differences:
      The authors' code adds 1e-8 to norms and finds polar factors in bfloat16; it
      leaves the norm of each group of parameters to the user, while roles decide here.
      Its examples have no embedding apart from the head, and no biases: their radii are
      ours. The paper's text was not read; the rule is that of notes on it and of its
      authors' code.
    """
    radii = dict(
        hidden_radius=hidden_radius,
        head_radius=head_radius,
        embedding_radius=embedding_radius,
        vector_radius=vector_radius,
    )

    def length(h: Any, reading: Reading) -> jax.Array:
        kind = "vector" if reading.role in ("gain", "bias") else reading.role
        return jnp.asarray(getattr(h, f"{kind}_radius"))

    direction = oracle(
        "scion",
        BY_ROLE if norms is None else norms,
        {"[0, 1)": dict(momentum=momentum), "[0, inf)": radii},
        length,
        momentum="average",
        decay="momentum",
        method=method,
        steps=steps,
        by_dual_norm=False,
        rules=rules,
        stacked=stacked,
    )
    # The center of the ball is zero: a decay of 1 times the rate.
    decay = 1.0 if constrained else None
    return optax.chain(direction, descend(learning_rate, decay, name="scion"))
