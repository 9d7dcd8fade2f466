"""LAWN: free training at first, then weights of constant norm."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from gnomon.kernels import Implementation
from gnomon.optimizers.mechanisms.constrain import constrain
from gnomon.optimizers.mechanisms.sets import View, fixed_norm
from gnomon.parameters.checks import require_within
from gnomon.parameters.select import Where
from gnomon.parameters.units import Rules

__all__ = ["lawn", "lawn_schedule"]

RECOMMENDED = {
    "lawn": dict(
        inner=dict(name="optax.adam", learning_rate=3e-3, b1=0.9, b2=0.99, eps=1e-8),
        free_steps=100.0,
    )
}


def lawn(
    inner: optax.GradientTransformation,
    *,
    free_steps: jax.typing.ArrayLike,
    constrained: Where | None = None,
    view: View = "layer",
    floor: jax.typing.ArrayLike = 0.0,
    rules: Rules | None = None,
    stacked: str | None = None,
    implementation: Implementation | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""LAWN: any optimizer, with weight norms that stay constant after a free phase.

    The first ``free_steps`` updates are those of ``inner``, to the bit. Then the norms
    :math:`c_l = \|w_l\|` of the constrained leaves are frozen and, with
    :math:`\Pi_w(x) = x - w \langle w, x \rangle / \|w\|^2`,

    .. math::
      u_l &= \Pi_{w_l}\big(\text{inner}(\Pi_{w_l} g_l)\big) \\
      w_l &\leftarrow c_l\, \frac{w_l + u_l}{\|w_l + u_l\|}

    where :math:`u_l` includes the learning rate and the sign. The update is projected
    too, because preconditioning and old momentum have a radial part again. The other
    leaves follow ``inner`` throughout. The loss can no longer be lowered by scaling up
    the logits of a homogeneous network, and the step relative to the weights stays
    :math:`\|u_l\| / c_l`.

    Weight decay of ``inner`` is radial, so it is inert after the switch; the method
    uses none.

    Args:
      inner: a complete optimizer, such as ``optax.adam(1e-3)``; for its learning rate
        see :func:`lawn_schedule`.
      free_steps: length of the free phase in updates, a whole number.
      constrained: which leaves keep their norm: a regex found in the path, or a mask (a
        tree of bools, a prefix, or a function of the parameters); default every leaf
        that has units. The method means the layers of the last part of the network that
        is positively homogeneous in each of them: all layers of a plain ReLU network,
        those after the last normalization layer otherwise.
      view: one norm a "layer" (Frobenius), the default, or a "unit".
      floor: smallest norm :math:`c_l`, default 0; a leaf that is zero at the switch is
        left free.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.
      implementation: what moves constrained weights in
        :func:`gnomon.optimizers.apply_fused`, ``"xla"``, ``"tpu"`` or ``"gpu"``;
        default the kernel where it is known to be faster, see :mod:`gnomon.kernels`.

    Returns:
      The optimizer. It needs ``params`` in ``update``. Its state is a
      ``ConstrainState``; ``state.reference`` holds the frozen norms.

    Raises:
      ValueError: if ``params`` is missing, ``free_steps`` or ``floor`` is not one
        number or out of range, ``constrained`` matches no leaf, ``inner`` climbs, or a
        transform inside controls norms too or is known to decay a constrained leaf.
      TypeError: if ``inner`` is no transform.

    Example:
      Logistic loss on separable data: momentum SGD alone would reach norm 3.84.

      >>> inputs = jnp.array([[2.0, 1.0], [-1.0, -2.0]])
      >>> labels = jnp.array([1.0, -1.0])
      >>> def loss(w):
      ...     return jnp.log1p(jnp.exp(-labels * (inputs @ w)[:, 0])).mean()
      >>> optimizer = lawn(optax.sgd(0.1, momentum=0.9), free_steps=5)
      >>> w = jnp.array([[0.1], [0.2]])
      >>> state = optimizer.init(w)
      >>> for step in range(200):
      ...     updates, state = optimizer.update(jax.grad(loss)(w), state, w)
      ...     w = optax.apply_updates(w, updates)
      ...     if step in (0, 4, 199):
      ...         print(f"step {step + 1}: norm {jnp.linalg.norm(w):.4f}")
      step 1: norm 0.3029
      step 5: norm 1.0810
      step 200: norm 1.0810

    References:
      Gupta et al., `Logit Attenuating Weight Normalization
      <https://arxiv.org/abs/2108.05839>`_, 2021

    Differences:
      No code of the authors is public, and the evidence for this form is weak. From the
      paper's abstract are the idea (constrain the weight norms of layers in the final
      homogeneous part of the network, on top of any optimizer) and its aim (keep
      adaptivity when logits grow, at large batch sizes). The two phases and the order
      of projections above are a self-consistent reading of it. Ours are: one norm a
      layer or a unit, the default set of leaves, biases (never stacked into the
      weights), and leaves that are zero. The state of ``inner`` is left alone at the
      switch: first moments projected there give weights without a gradient so far a
      first moment but no second one, and Adam leaps (a digits MLP from 15 to 38 %
      error). For ``optax.lamb`` the trust ratio is taken before the update is
      projected.
    """
    require_within("[0, 2147483647]", free_steps=free_steps, whole=True)
    constraint = fixed_norm(
        constrained=constrained,
        view=view,
        floor=floor,
        rules=rules,
        stacked=stacked,
        implementation=implementation,
    )
    return constrain(
        inner,
        constraint._replace(name="lawn"),
        start=free_steps,
        tangent="both",
    )


def lawn_schedule(
    peak: jax.typing.ArrayLike,
    *,
    warmup_steps: jax.typing.ArrayLike,
    total_steps: jax.typing.ArrayLike,
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
    """LAWN's learning rate: linear warm-up, then linear decay to zero.

    It is continuous and knows nothing of the switch, which may come before or after the
    end of the warm-up. Every number may be traced.

    Args:
      peak: the largest learning rate.
      warmup_steps: updates from rate 0 to ``peak``; with 0 it starts at ``peak``.
      total_steps: updates until the rate is 0 again.

    Returns:
      A schedule, ``schedule(count)``.

    Raises:
      ValueError: if an argument is not one number or out of range.

    Example:
      >>> schedule = lawn_schedule(0.1, warmup_steps=2, total_steps=10)
      >>> print(jnp.array([schedule(t) for t in (0, 1, 2, 6, 10, 11)]).round(3))
      [0.   0.05 0.1  0.05 0.   0.  ]
    """
    require_within(
        "[0, inf)", peak=peak, warmup_steps=warmup_steps, total_steps=total_steps
    )

    def schedule(count: jax.typing.ArrayLike) -> jax.Array:
        top = jnp.asarray(peak, jnp.result_type(float))
        t, warmup, total = (
            jnp.asarray(x, top.dtype) for x in (count, warmup_steps, total_steps)
        )
        rising = t / jnp.maximum(warmup, 1)
        falling = (total - t) / jnp.maximum(total - warmup, 1)
        return top * jnp.clip(jnp.where(t < warmup, rising, falling), 0, 1)

    return schedule
