"""Adaptive gradient clipping: no unit's gradient is long against its weights."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.diagnostics import means, note
from gnomon.optimizers.mechanisms.leafwise import leafwise
from gnomon.optimizers.mechanisms.sets import norm_plan
from gnomon.parameters.roles import Role, roles, warn_of_guesses
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules, unit_norm

__all__ = ["AdaptiveClipState", "adaptive_clip"]
# Below it a gradient is taken for zero: no number to divide by.
_TINY = 1e-6

CLIPPED = means("clipped", "share of the units whose gradient was clipped")


class AdaptiveClipState(NamedTuple):
    """State of :func:`adaptive_clip`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]


def adaptive_clip(
    clipping: jax.typing.ArrayLike = 0.01,
    eps: jax.typing.ArrayLike = 1e-3,
    *,
    constrained: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Clips the gradient of every output unit at a share of its weights' norm.

    .. math::
      g_i \leftarrow g_i \frac{c \max(\|w_i\|, \epsilon)}{\|g_i\|}
      \quad \text{where} \quad \|g_i\| > c \max(\|w_i\|, \epsilon)

    for units :math:`i`; a leaf without units, such as a bias, is one. It stands first
    in a chain: ``optax.chain(adaptive_clip(), optax.sgd(0.1))``.

    Args:
      clipping: the share :math:`c`, default 0.01, in the paper 0.01 to 0.16, less for
        larger batches.
      eps: the least norm :math:`\epsilon` that weights count for, default 1e-3.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default all but the output layer's
        kernel. An output layer that is a guess is said in a warning.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It needs ``params`` in ``update``. The share of units that it
      clipped is ``clipped`` in :func:`gnomon.optimizers.observed`.

    Raises:
      ValueError: if ``params`` is missing, a hyperparameter is not one number or out of
        range, or ``constrained`` matches no leaf.

    Example:
      The weights of both units have the norm 5; the second gradient is too long:

      >>> clip, w = adaptive_clip(0.1), jnp.array([[3.0, 3.0], [4.0, 4.0]])
      >>> g = jnp.array([[0.3, 30.0], [0.0, 0.0]])
      >>> print(clip.update(g, clip.init(w), w)[0])
      [[0.3 0.5]
       [0.  0. ]]

    References:
      Brock et al., `High-Performance Large-Scale Image Recognition Without
      Normalization <https://arxiv.org/abs/2102.06171>`_, 2021

    Differences:
      ``optax.adaptive_grad_clip`` is the same on dense, convolution and query, key and
      value kernels. Of an attention's output kernel it takes one of the two input axes,
      of an embedding the columns; here a unit has both axes, and is a row. It selects
      all leaves; the paper leaves out the last layer, here its kernel.
    """

    def but_the_head(params: Any) -> Any:
        kinds = roles(params, rules, stacked)
        warn_of_guesses(kinds, "adaptive_clip", "name the leaves by constrained=...")
        return jax.tree.map(
            lambda role: role.role != "head",
            kinds,
            is_leaf=lambda node: isinstance(node, Role),
        )

    def rule(h: Any, g: jax.Array, w: jax.Array) -> jax.Array:
        norm = unit_norm(g, h.axes)
        bound = h.clipping * jnp.maximum(unit_norm(w, h.axes), h.eps)
        over = norm > bound
        note(CLIPPED, lambda: (jnp.sum(over), over.size))
        return jnp.where(over, g * (bound / jnp.maximum(norm, _TINY)), g)

    chosen = but_the_head if constrained is None else constrained
    return leafwise(
        "adaptive_clip",
        rule,
        AdaptiveClipState,
        (),
        {"[0, inf]": dict(clipping=clipping), "[0, inf)": dict(eps=eps)},
        plan=norm_plan(chosen, "unit", rules, stacked),
        stacked=stacked,
    )
