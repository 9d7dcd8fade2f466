"""Sets of weights for :func:`gnomon.optimizers.constrain`, as small values.

A constraint selects leaves by ``constrained``: a regex found in the path, a mask (a
tree of bools, a prefix of one, or a function of the parameters), or None for every leaf
that has units (see ``units``: kernels and embeddings, not biases and scales). Norms
are those of a whole layer (``view="layer"``, Frobenius) or of each output unit
(``view="unit"``). Layers stacked along axis 0 are told by ``stacked`` and are
constrained one by one.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.kernels import Implementation
from gnomon.kernels import fixed_norm as fixed_norm_kernel
from gnomon.kernels import variance as variance_kernel
from gnomon.kernels.fixed_norm.program import restored
from gnomon.optimizers.mechanisms.constrain import Constraint, leaf_constraint
from gnomon.parameters.checks import require_choice, require_within
from gnomon.parameters.paths import path_string
from gnomon.parameters.roles import roles, warn_of_guesses
from gnomon.parameters.select import LAYER, Where, layer_number, select
from gnomon.parameters.trees import compute_dtype, map_leaves
from gnomon.parameters.units import (
    Axes,
    Rules,
    project_tangent,
    resolve_axes,
    retract,
    unit_norm,
)

__all__ = ["fixed_norm", "max_norm", "target_std", "unit_sphere"]

View = Literal["layer", "unit"]


def norm_plan(
    constrained: Where | None, view: View, rules: Rules | None, stacked: str | None
) -> Callable[[optax.Params], Any]:
    """The axes over which norms are taken, as a function of the parameters.

    Args:
      constrained: the leaves, see the module.
      view: "layer" for one norm a layer, "unit" for one an output unit. A selected leaf
        without units, such as a bias, has one norm in either view.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      A function from parameters to a tree of ``Axes``, None at free leaves.

    Raises:
      ValueError: if ``view`` is unknown.
    """
    require_choice("view", view, View)

    def plan(params: optax.Params) -> Any:
        axes = resolve_axes(params, rules, stacked)

        def with_units() -> Any:
            return jax.tree.map(lambda w, a: bool(a.reduce), params, axes)

        chosen = select(params, constrained, with_units, "constrained", stacked)

        def of_leaf(
            leaf: jax.Array, is_chosen: bool, of_unit: Axes
        ) -> tuple[Axes | None]:
            if not is_chosen:
                return (None,)
            by_unit = view == "unit" and of_unit.reduce
            return (of_unit if by_unit else of_unit.layer(leaf.ndim),)

        return map_leaves(of_leaf, params, (), chosen, axes)[0]

    return plan


def fixed_norm(
    *,
    constrained: Where | None = None,
    view: View = "layer",
    floor: jax.typing.ArrayLike = 0.0,
    rules: Rules | None = None,
    stacked: str | None = None,
    implementation: Implementation | None = None,
) -> Constraint:
    r"""Weights keep the norm :math:`c = \|w\|` they had when the constraint began.

    .. math::
      P(w) = c\, w / \|w\|, \qquad c = \max(\|w_{start}\|, \text{floor})

    A norm :math:`c = 0` would freeze a leaf at zero for good: such a leaf (an output
    layer that starts at zero) is left free instead.

    Args:
      constrained: the leaves, default all that have units.
      view: one norm a "layer", the default, or a "unit".
      floor: smallest norm :math:`c`, default 0.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.
      implementation: what moves the weights in :func:`gnomon.optimizers.apply_fused`,
        ``"xla"``, ``"tpu"`` or ``"gpu"``; default the kernel where it is known to be
        faster.

    Returns:
      The constraint.

    Raises:
      ValueError: if ``view`` is unknown, ``floor`` is not one number or out of range,
        or ``implementation`` cannot run.

    Example:
      >>> constraint = fixed_norm()
      >>> w = {"kernel": jnp.array([[3.0], [4.0]])}
      >>> moved = {"kernel": jnp.array([[0.0], [2.0]])}
      >>> print(constraint.project(moved, constraint.capture(w))["kernel"].T)
      [[0. 5.]]
    """
    require_within("[0, inf)", floor=floor)

    def capture(w: jax.Array, axes: Axes) -> jax.Array:
        norm = unit_norm(w, axes)
        return jnp.maximum(norm, jnp.asarray(floor, norm.dtype))

    def project(w: jax.Array, norm: jax.Array, axes: Axes) -> jax.Array:
        wide = w.astype(compute_dtype(w.dtype))
        return restored(wide, norm.astype(wide.dtype), axes.reduce).astype(w.dtype)

    def step(
        w: jax.Array, u: jax.Array, norm: jax.Array, axes: Axes, **how: Any
    ) -> jax.Array:
        return fixed_norm_kernel.step(
            w,
            u,
            norm,
            reduce=axes.reduce,
            stack=axes.stack,
            implementation=implementation,
            fall_back=True,
            **how,
        )

    chosen = fixed_norm_kernel.explain(implementation=implementation)
    return leaf_constraint(
        "fixed_norm",
        norm_plan(constrained, view, rules, stacked),
        project=project,
        capture=capture,
        tangent=_sphere_tangent,
        allows_decay=False,
        moves_all=True,
        step=None if chosen.implementation == "xla" else step,
        stacked=stacked,
    )


def unit_sphere(
    *,
    norm: jax.typing.ArrayLike = 1.0,
    constrained: Where | None = None,
    view: View = "unit",
    rules: Rules | None = None,
    stacked: str | None = None,
) -> Constraint:
    """Weights of a given norm: every output unit on the unit sphere.

    Args:
      norm: the norm, default 1.
      constrained: the leaves, default all that have units.
      view: one norm a "unit", the default, or a "layer".
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The constraint. A zero unit has no direction and stays zero.

    Raises:
      ValueError: if ``view`` is unknown or ``norm`` is not one number or out of range.

    Example:
      >>> w = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]])}
      >>> print(unit_sphere().project(w, ())["kernel"])
      [[0.6 0. ]
       [0.8 1. ]]
    """
    require_within("(0, inf)", norm=norm)
    return leaf_constraint(
        "unit_sphere",
        norm_plan(constrained, view, rules, stacked),
        project=lambda w, _, axes: retract(w, norm, axes),
        tangent=_sphere_tangent,
        allows_decay=False,
        moves_all=True,
        stacked=stacked,
    )


def max_norm(
    bound: jax.typing.ArrayLike,
    *,
    constrained: Where | None = None,
    view: View = "unit",
    rules: Rules | None = None,
    stacked: str | None = None,
) -> Constraint:
    """Weights of norm at most ``bound``; longer ones are scaled back to it.

    Args:
      bound: the largest norm, positive.
      constrained: the leaves, default all that have units.
      view: one norm a "unit", the default, or a "layer".
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The constraint.

    Raises:
      ValueError: if ``view`` is unknown or ``bound`` is not one number or out of range.

    Example:
      >>> w = {"kernel": jnp.array([[3.0, 0.0], [4.0, 2.0]])}
      >>> print(max_norm(2.5).project(w, ())["kernel"])
      [[1.5 0. ]
       [2.  2. ]]
    """
    require_within("(0, inf]", bound=bound)

    def project(w: jax.Array, _: None, axes: Axes) -> jax.Array:
        limit = jnp.asarray(bound, w.dtype)
        return jnp.where(unit_norm(w, axes) > limit, retract(w, limit, axes), w)

    return leaf_constraint(
        "max_norm",
        norm_plan(constrained, view, rules, stacked),
        project=project,
        stacked=stacked,
    )


def _sphere_tangent(
    u: jax.Array, w: jax.Array, norm: jax.Array | None, axes: Axes
) -> jax.Array:
    """The part of ``u`` along the sphere; all of it where there is no norm to keep."""
    along = project_tangent(u, w, axes, eps=0.0)
    return along if norm is None else jnp.where(norm > 0, along, u)


class _Spread(NamedTuple):
    """What :func:`target_std` knows of one leaf."""

    axes: Axes  # of a whole layer
    number: Any  # one-based layer number, shaped to broadcast, or None


def target_std(
    target: jax.typing.ArrayLike,
    *,
    ratio: jax.typing.ArrayLike = 1.2,
    scale_with_depth: bool = False,
    zero_bias: bool = False,
    constrained: Where | None = None,
    layers: str = LAYER,
    rules: Rules | None = None,
    stacked: str | None = None,
    implementation: Implementation | None = None,
) -> Constraint:
    r"""Weights whose standard deviation is not far above a target.

    .. math::
      P(W) = \begin{cases}
        s_t\, (W - \mu) / s + \mu & \text{if } s > r\, s_t \\ W & \text{otherwise}
      \end{cases} \qquad s_t = \text{target} \text{ or target} / \sqrt{l}

    with :math:`\mu` the mean of a layer's weights, :math:`s` their standard deviation
    (Bessel's, divided by :math:`n - 1`) and :math:`l` the one-based layer number.

    Args:
      target: the standard deviation :math:`s_t`.
      ratio: :math:`r`, how far above it is tolerated, default 1.2.
      scale_with_depth: divide the target of layer :math:`l` by :math:`\sqrt{l}`.
      zero_bias: where a layer is rescaled, set the ``bias`` beside it to zero.
      constrained: the leaves, default all hidden ones (:mod:`gnomon.parameters.roles`)
        that lie in a layer; an output layer that is a guess is said in a warning.
      layers: regex whose first group is a leaf's zero-based layer index; by default the
        first name of the path that is a number or ends in one, ``blocks/0``.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has its
        own statistics and number.
      implementation: what moves the weights in :func:`gnomon.optimizers.apply_fused`,
        ``"xla"``, ``"tpu"`` or ``"gpu"``; default the kernel where it is known to be
        faster.

    Returns:
      The constraint.

    Raises:
      ValueError: if ``target`` or ``ratio`` is not one number or out of range, no leaf
        lies in a layer, or ``implementation`` cannot run.

    Example:
      >>> w = {"blocks": {"0": {"kernel": jnp.array([[1.0, 2.0], [3.0, 6.0]])}}}
      >>> kernel = target_std(0.5).project(w, ())["blocks"]["0"]["kernel"]
      >>> print(f"mean {kernel.mean():.3f}, std {kernel.std(ddof=1):.3f}")
      mean 3.000, std 0.500
    """
    require_within("(0, inf)", target=target, ratio=ratio)

    def plan(params: optax.Params) -> Any:
        axes = resolve_axes(params, rules, stacked)
        numbers = jax.tree_util.tree_map_with_path(
            lambda path, w: layer_number(path_string(path), w.shape, layers, stacked),
            params,
        )

        def in_layers() -> Any:
            kinds = roles(params, rules, stacked)
            warn_of_guesses(kinds, "target_std", "name the leaves by constrained=...")
            (chosen,) = map_leaves(
                lambda w, role, n: (role.role == "hidden" and n is not None,),
                params,
                (),
                kinds,
                numbers,
            )
            if jax.tree.leaves(chosen) and not any(jax.tree.leaves(chosen)):
                raise ValueError(
                    f"no kernel lies in a layer: no path matches layers={layers!r}. "
                    "Give layers, stacked (for scanned layers) or constrained."
                )
            return chosen

        chosen = select(params, constrained, in_layers, "constrained", stacked)

        def of_leaf(
            w: jax.Array, is_chosen: bool, of_unit: Axes, number: Any
        ) -> tuple[_Spread | None]:
            info = _Spread(of_unit.layer(w.ndim), number) if is_chosen else None
            return (info,)

        return map_leaves(of_leaf, params, (), chosen, axes, numbers)[0]

    def aim(dtype: jax.typing.DTypeLike, info: _Spread) -> jax.Array:
        goal = jnp.asarray(target, dtype)
        if scale_with_depth and info.number is not None:
            goal = goal / jnp.sqrt(jnp.asarray(info.number, dtype))
        return goal

    def measure(w: jax.Array, info: _Spread) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Whether the layer is too wide, its mean, and the factor on what is left."""
        axes = info.axes.reduce
        count = 1
        for axis in axes:
            count *= w.shape[axis]
        mean = jnp.sum(w, axis=axes, keepdims=True) / max(count, 1)
        square = jnp.sum(jnp.square(w - mean), axis=axes, keepdims=True)
        spread = jnp.sqrt(square / max(count - 1, 1))
        goal = aim(w.dtype, info)
        wide = spread > jnp.asarray(ratio, w.dtype) * goal
        return wide, mean, goal / jnp.where(spread > 0, spread, 1)

    def project(w: jax.Array, _: None, info: _Spread) -> jax.Array:
        wide, mean, factor = measure(w, info)
        return jnp.where(wide, (w - mean) * factor + mean, w)

    def step(
        w: jax.Array, u: jax.Array, _: None, info: _Spread, *, tangent: bool, **how: Any
    ) -> jax.Array:
        assert not tangent  # this set has none
        return variance_kernel.step(
            w,
            u,
            target=aim(compute_dtype(w.dtype), info),
            ratio=ratio,
            stack=info.axes.stack,
            implementation=implementation,
            fall_back=True,
            **how,
        )

    chosen = variance_kernel.explain(implementation=implementation)
    # A kernel rescales one leaf and tells nobody, so the bias beside it needs XLA.
    by_kernel = chosen.implementation != "xla" and not zero_bias
    kernels = leaf_constraint(
        "target_std",
        plan,
        project=project,
        step=step if by_kernel else None,
        stacked=stacked,
    )
    if not zero_bias:
        return kernels

    def is_wide(params: optax.Params) -> Any:
        (wide,) = map_leaves(
            lambda w, info: (None if info is None else measure(w, info)[0],),
            params,
            (),
            plan(params),
        )
        return wide

    return _zeroing_biases(kernels, is_wide)


def _zeroing_biases(kernels: Constraint, is_wide: Callable[[Any], Any]) -> Constraint:
    """The constraint, and the bias beside each kernel that it rescales set to zero.

    Args:
      kernels: the constraint.
      is_wide: maps parameters to a tree of bools, with axis 0 over layers: the layers
        that the constraint rescales.
    """

    def beside(path: tuple[Any, ...]) -> str:
        return "/".join((*path_string(path).split("/")[:-1], "bias"))

    def selects(params: optax.Params) -> Any:
        chosen = kernels.selects(params)
        leaves = jax.tree_util.tree_leaves_with_path(chosen)
        biases = {beside(path) for path, is_kernel in leaves if is_kernel}
        return jax.tree_util.tree_map_with_path(
            lambda path, is_kernel: is_kernel or path_string(path) in biases, chosen
        )

    def project(params: optax.Params, reference: Any) -> optax.Params:
        leaves = jax.tree_util.tree_leaves_with_path(is_wide(params))
        wide = {beside(path): fires for path, fires in leaves}

        def reset(path: tuple[Any, ...], w: jax.Array) -> jax.Array:
            fires = wide.get(path_string(path))
            if fires is None or not w.ndim:
                return w
            fires = fires.reshape((-1,) + (1,) * (w.ndim - 1))
            return jnp.where(fires, jnp.zeros_like(w), w)

        return jax.tree_util.tree_map_with_path(
            reset, kernels.project(params, reference)
        )

    return kernels._replace(selects=selects, project=project)
