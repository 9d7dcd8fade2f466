"""The radial projection of AdamP and SGDP, as a rule and as a wrapper.

A weight that is followed by a normalization layer is scale invariant: its gradient is
orthogonal to it, and any radial part of an update only makes it longer, which shrinks
the effective step. The projection removes that part wherever the gradient test says
that the weight is scale invariant.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.kernels.adamp.program import Units, radial, views
from gnomon.optimizers.mechanisms.diagnostics import means, note
from gnomon.optimizers.mechanisms.inner import ascending
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.leafwise import Hyperparameters, leafwise
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import ScalarOrSchedule, require_params
from gnomon.parameters.units import Axes, Rules

__all__ = ["ProjectRadialState", "project_radial"]

PROJECTED = means(
    "projected", "share of the units that are tested whose radial part was removed"
)


class Radial(NamedTuple):
    """What the test found for one leaf; both broadcast against it."""

    coefficient: jax.Array  # the radial part of the direction is coefficient * w
    decay_ratio: jax.Array  # what to multiply weight decay by: wd_ratio or 1


def radial_part(
    direction: jax.Array,
    grad: jax.Array,
    param: jax.Array,
    axes: Axes,
    *,
    delta: jax.typing.ArrayLike,
    wd_ratio: jax.typing.ArrayLike,
    eps: jax.typing.ArrayLike,
) -> Radial:
    r"""Tests one leaf for scale invariance and measures what to remove.

    The first view whose units all pass, :math:`|\cos(g_i, w_i)| < \delta / \sqrt{n_i}`
    with :math:`n_i` numbers in unit :math:`i`, decides: first the view of single units,
    then the whole layer as one unit. The radial part in that view is
    :math:`u_i \langle u_i, p_i \rangle` with :math:`u_i = w_i / (\|w_i\| + \epsilon)`.
    Without a passing view, or for a leaf without units, nothing is removed.

    Args:
      direction: the direction :math:`p`, computed in float32 or wider.
      grad: the raw gradient :math:`g`, of the same dtype.
      param: the weight :math:`w`, of the same dtype.
      axes: the leaf's axes.
      delta: threshold of the test.
      wd_ratio: factor on weight decay where a view passed.
      eps: floor of the norms in the cosine, and added to :math:`\|w_i\|`.

    Returns:
      The coefficient and the weight decay ratio.
    """
    dtype = param.dtype
    if not axes.reduce or not param.size:
        return Radial(jnp.zeros([], dtype), jnp.ones([], dtype))
    delta, wd_ratio, eps = (jnp.asarray(x, dtype) for x in (delta, wd_ratio, eps))
    *squares, inner = (
        jnp.sum(x, axis=axes.reduce, keepdims=True)
        for x in (grad * param, grad * grad, param * param, direction * param)
    )
    # The sums of the layer view add up those of the units; without the barrier XLA
    # merges the two reductions into one more pass over the arrays.
    squares, inner = jax.lax.optimization_barrier((squares, inner))
    found = views(squares, param.shape, Units(axes.reduce, axes.stack), delta, eps)
    total = jnp.sum(inner, axis=axes.layer(param.ndim).reduce, keepdims=True)
    passed = found.by_unit | found.by_layer  # a layer's units all together
    note(PROJECTED, lambda: (passed.mean() * inner.size, inner.size))
    return Radial(
        radial(found.by_unit, inner, found.unit_square)
        + radial(found.by_layer, total, found.layer_square),
        jnp.where(passed, wd_ratio, jnp.ones([], dtype)),
    )


class ProjectRadialState(NamedTuple):
    """State of :func:`project_radial`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    inner: optax.OptState  # the state of the wrapped transform


def project_radial(
    direction: optax.GradientTransformation | None = None,
    *,
    delta: jax.typing.ArrayLike = 0.1,
    wd_ratio: jax.typing.ArrayLike = 0.1,
    weight_decay: ScalarOrSchedule = 0.0,
    weight_decay_mask: optax.MaskOrFn | None = None,
    eps: jax.typing.ArrayLike = 1e-8,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Removes the radial part of any direction on scale-invariant weights.

    With :math:`p` the ``direction`` that is made of the gradient :math:`g`, emits

    .. math::
      q = p - \Pi^{r}_w(p) + \lambda \rho w,

    where :math:`\Pi^r_w(p)` is the radial part found by :func:`radial_part` and
    :math:`\rho` is ``wd_ratio`` where the test passed and 1 elsewhere. Decay belongs
    here, and not in a later ``add_decayed_weights``, because its rate depends on the
    test. Scale the result by minus the learning rate afterwards.

    Args:
      direction: the transform that makes it, ascent-signed and without a
        learning rate (``optax.scale_by_lion()``, a chain, ...). The updates it receives
        are taken for the raw gradient; the extra arg ``grad`` overrides them, for use
        after a transform that turned the gradient. Left out, this is a link of a chain
        that projects the updates it is given, and ``grad`` is required.
      delta: threshold of the test, a positive scalar, default 0.1.
      wd_ratio: factor on weight decay where the test passed, default 0.1.
      weight_decay: decoupled weight decay :math:`\lambda`, a scalar or a schedule,
        default 0.
      weight_decay_mask: tree of bools (or a prefix, or a function of the parameters)
        saying which leaves decay; default all.
      eps: guard of the norms, default 1e-8.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It needs ``params`` in ``update``.

    Raises:
      ValueError: if ``params`` is missing, ``grad`` is missing without ``direction``,
        it descends, a hyperparameter is not one number or out of range, or a rule
        matches no leaf.
      TypeError: if ``direction`` is no transform.

    Example:
      The gradient is orthogonal to the weights, its sign is not:

      >>> import jax.numpy as jnp, optax
      >>> signs = project_radial(optax.scale_by_sign())
      >>> w = jnp.array([[4.0], [2.0]])
      >>> g = jnp.array([[-0.1], [0.2]])
      >>> direction, state = signs.update(g, signs.init(w), w)
      >>> print(direction.T)
      [[-0.6  1.2]]

    References:
      Heo et al., `AdamP: Slowing Down the Slowdown for Momentum Optimizers on
      Scale-invariant Weights <https://arxiv.org/abs/2006.08217>`_, 2021
    """
    given = optax.identity() if direction is None else direction
    wrapped = layered(ascending("direction", given), stacked)

    def rule(h: Hyperparameters, p: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
        radial = radial_part(
            p, g, w, h.axes, delta=h.delta, wd_ratio=h.wd_ratio, eps=h.eps
        )
        return project_and_decay(p, w, radial, h.weight_decay)

    sizes = dict(delta=delta, wd_ratio=wd_ratio, weight_decay=weight_decay, eps=eps)
    projected = leafwise(
        "project_radial",
        rule,
        lambda count: (count,),
        (),
        {"[0, inf)": sizes},
        weight_decay_mask=weight_decay_mask,
        rules=rules,
        stacked=stacked,
        further=lambda updates, count, params, extra_args: (extra_args["grad"],),
    )

    def init_fn(params: optax.Params) -> ProjectRadialState:
        (count,) = projected.init(params)
        return ProjectRadialState(count, wrapped.init(params))

    def update_fn(
        updates: optax.Updates,
        state: ProjectRadialState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ProjectRadialState]:
        require_params(params, "project_radial")
        if direction is None and extra_args.get("grad") is None:
            raise ValueError(
                "project_radial() as a link of a chain tests the raw gradient: pass "
                "it as `update(..., grad=grads)`, or wrap the transform that makes the "
                "direction, `project_radial(direction)`."
            )
        grad = extra_args.get("grad")
        grad = updates if grad is None else grad
        directions, inner_state = wrapped.update(
            updates, state.inner, params, **extra_args
        )
        updates, (count,) = projected.update(
            directions, (state.count,), params, grad=grad
        )
        return updates, ProjectRadialState(count, inner_state)

    return transformation("project_radial", init_fn, update_fn)


def project_and_decay(
    direction: jax.Array,
    param: jax.Array,
    radial: Radial,
    weight_decay: jax.typing.ArrayLike,
) -> jax.Array:
    """The direction without its radial part, plus weight decay at the found ratio.

    Args:
      direction: the direction, in the dtype of ``param``.
      param: the weight.
      radial: what :func:`radial_part` found.
      weight_decay: the rate before the ratio.

    Returns:
      ``direction + (weight_decay * ratio - coefficient) * param``.
    """
    decay = jnp.asarray(weight_decay, param.dtype) * radial.decay_ratio
    # The barrier keeps XLA from computing the number of each unit anew for every entry.
    along: jax.Array = jax.lax.optimization_barrier(decay - radial.coefficient)
    return direction + along * param
