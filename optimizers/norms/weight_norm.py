"""Weight normalization: any optimizer, on directions and scales instead of weights."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.kernels import Implementation
from gnomon.kernels import weight_norm as kernel
from gnomon.optimizers.mechanisms.composition import norm_control
from gnomon.optimizers.mechanisms.inner import complete
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.reparameterize import ReparameterizeState, walk
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_choice, require_within
from gnomon.parameters.select import Where, select
from gnomon.parameters.trees import map_leaves
from gnomon.parameters.units import Axes, Rules, resolve_axes

__all__ = ["WeightNormLatents", "weight_norm"]

RECOMMENDED = {
    "weight_norm_adamw": dict(
        name="gnomon.optimizers.weight_norm",
        inner=dict(
            name="optax.adamw",
            learning_rate=3e-3,
            b1=0.9,
            b2=0.99,
            eps=1e-8,
            weight_decay=0.01,
        ),
        eps=1e-8,
    )
}

Start = Literal["weight", "unit"]


class WeightNormLatents(NamedTuple):
    """What the inner optimizer of :func:`weight_norm` moves."""

    # v, shaped like the parameters; the parameter itself where it is not normalized.
    direction: Any
    # g, a vector of one number a unit, [layers, units] where layers are stacked; None
    # where the parameter is not normalized. Being vectors they are not mistaken for
    # matrices by optimizers that treat those apart.
    scale: Any


def weight_norm(
    inner: optax.GradientTransformation,
    *,
    normalized: Where | None = None,
    init: Start = "weight",
    eps: jax.typing.ArrayLike = 1e-8,
    rules: Rules | None = None,
    stacked: str | None = None,
    implementation: Implementation | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Weight normalization: the length of a unit and its direction learn apart.

    Each output unit :math:`w` is written as

    .. math::
      w = \frac{g}{\|v\|_\epsilon} v, \qquad \|v\|_\epsilon = \sqrt{\|v\|^2 + \epsilon}

    and ``inner`` optimizes :math:`g` and :math:`v`, whose gradients are, with
    :math:`\epsilon = 0` and :math:`\hat w = w / \|w\|`,

    .. math::
      \nabla_g L &= \langle \nabla_w L, v \rangle / \|v\| \\
      \nabla_v L &= \frac{g}{\|v\|} (I - \hat w \hat w^\top)\, \nabla_w L .

    The model keeps plain :math:`w`; :math:`g` and :math:`v` live in the state. They
    start so that :math:`w` is what it was. Since :math:`\nabla_v L \perp v`, gradient
    descent only ever lengthens :math:`v`, and a longer :math:`v` turns more slowly.
    With momentum or Adam the update is not orthogonal to :math:`v` and lengthens it
    faster, which ``weight_norm(adamp(...))`` avoids.

    A zero unit starts with :math:`v = 0` and :math:`g = \sqrt\epsilon`, and the first
    step moves it as it would move a plain weight; with ``eps=0`` it stays zero.

    Weight decay of ``inner`` acts on :math:`v` and :math:`g` alike. On :math:`g` it
    shrinks the weight; on :math:`v` it changes no output, and only keeps :math:`v` from
    growing, that is, its steps from shrinking. To decay one of them give ``inner`` a
    mask such as ``WeightNormLatents(direction=False, scale=True)``. Regexes and rules
    that ``inner`` is given see the paths ``direction/...`` and ``scale/...``.

    Args:
      inner: a complete optimizer, such as ``optax.adam(1e-3)``.
      normalized: which leaves: a regex found in the path, or a mask (a tree of bools, a
        prefix, or a function of the parameters); default all. Leaves without units
        (biases, scales) stay plain in any case.
      init: where :math:`v` starts, at the "weight", the default, or at the weight over
        its norm, "unit", so that all units turn at the same rate.
      eps: :math:`\epsilon`, default 1e-8.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.
      implementation: how weights are made of their directions and scales, and gradients
        taken back to these: ``"xla"``, ``"tpu"`` or ``"gpu"``; default the kernel where
        it is known to be faster, see :mod:`gnomon.kernels`.

    Returns:
      The optimizer. It needs ``params`` in ``update`` and is the last link of a chain,
      see :func:`reparameterize`. Its state is a ``ReparameterizeState`` whose
      ``latents`` are :class:`WeightNormLatents`.

    Raises:
      ValueError: if ``params`` is missing, ``eps`` is not one number or out of range,
        ``init`` is unknown, ``normalized`` matches no leaf, ``inner`` climbs, a
        transform inside or around it controls the norm of a normalized leaf too, or
        ``implementation`` cannot run.
      TypeError: if ``inner`` is no transform.

    Example:
      The gradient is along the weight, so only its length changes:

      >>> w = {"kernel": jnp.array([[3.0], [4.0]])}
      >>> g = {"kernel": jnp.array([[0.6], [0.8]])}
      >>> optimizer = weight_norm(optax.sgd(0.1))
      >>> state = optimizer.init(w)
      >>> updates, state = optimizer.update(g, state, w)
      >>> print(optax.apply_updates(w, updates)["kernel"].T)
      [[2.94 3.92]]
      >>> print(state.latents.scale["kernel"], state.latents.direction["kernel"].T)
      [4.9] [[3. 4.]]

    References:
      Salimans & Kingma, `Weight Normalization: A Simple Reparameterization to
      Accelerate Training of Deep Neural Networks <https://arxiv.org/abs/1602.07868>`_,
      2016

    Differences:
      The paper has no :math:`\epsilon`; ``eps=0`` is its formula. There a layer is
      normalized by its author and its scale is drawn from data, see
      :func:`data_dependent_init`; here every leaf with units is by default, embeddings
      included, and the scale keeps the function as it is. ``flax.linen.WeightNorm``
      starts at scale one, and has one scale for all heads of an attention kernel.
    """
    require_within("[0, inf)", eps=eps)
    # Refuses what cannot run.
    kernel.explain(jax.ShapeDtypeStruct((1, 128), "float32"), 1, implementation)
    require_choice("init", init, Start)

    def chosen(params: optax.Params) -> Any:
        axes = resolve_axes(params, rules, stacked)
        named = select(
            params,
            normalized,
            lambda: jax.tree.map(lambda _: True, params),
            "normalized",
            stacked,
        )

        def is_chosen(_: jax.Array, is_named: bool, axes: Axes) -> tuple[bool]:
            return (is_named and bool(axes.reduce),)

        return map_leaves(is_chosen, params, (), named, axes)[0]

    def inverse(params: optax.Params) -> WeightNormLatents:
        if not jax.tree.leaves(params):  # asked for the layout: scales are no params
            return WeightNormLatents(params, jnp.zeros([]))

        def split(
            w: jax.Array, is_chosen: bool, axes: Axes
        ) -> tuple[jax.Array, jax.Array | None]:
            if not is_chosen:
                return w, None
            norm = _norm(w, axes, eps)
            if init == "weight":
                return w, _by_layer(norm, axes)
            v = w * _inverse(norm)
            return v, _by_layer(norm * _norm(v, axes, eps), axes)

        leaves: list[Any]
        treedef: Any  # jax declares no methods for it
        leaves, treedef = jax.tree.flatten(params)
        axes = treedef.flatten_up_to(resolve_axes(params, rules, stacked))
        pairs = map(split, leaves, treedef.flatten_up_to(chosen(params)), axes)
        directions, scales = zip(*pairs, strict=True)
        return WeightNormLatents(
            treedef.unflatten(directions), treedef.unflatten(scales)
        )

    def forward(latents: WeightNormLatents) -> optax.Params:
        v, g = latents
        if not jax.tree.leaves(v):
            return v

        def merge(v: jax.Array, g: jax.Array | None, axes: Axes) -> tuple[jax.Array]:
            if g is None:
                return (v,)
            w = kernel.weight_norm(
                v,
                g,
                axis=axes.reduce,
                eps=eps,
                implementation=implementation,
                fall_back=True,
            )
            return (w,)

        return map_leaves(merge, v, (), g, resolve_axes(v, rules, stacked))[0]

    wrapped = layered(complete(inner), stacked, ("direction/", "scale/"))
    mechanism = walk(wrapped, forward, inverse, "weight_norm")

    def init_fn(params: optax.Params) -> ReparameterizeState:
        outer = chosen(params)
        within = WeightNormLatents(direction=outer, scale=None)
        with norm_control("weight_norm", outer), norm_control("weight_norm", within):
            state: ReparameterizeState = mechanism.init(params)
            return state

    return transformation("weight_norm", init_fn, mechanism.update)


def _by_layer(norm: jax.Array, axes: Axes) -> jax.Array:
    """One number a unit, behind the axes of stacked layers."""
    return norm.reshape(*(norm.shape[axis] for axis in axes.stack), -1)


def _norm(v: jax.Array, axes: Axes, eps: jax.typing.ArrayLike) -> jax.Array:
    """``sqrt(|v|^2 + eps)`` of every unit, with zero gradient where it is zero."""
    squared = jnp.sum(jnp.square(v), axis=axes.reduce, keepdims=True)
    squared = squared + jnp.asarray(eps, v.dtype)
    positive = squared > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1)), 0)


def _inverse(norm: jax.Array) -> jax.Array:
    """``1 / norm``, and zero of zero."""
    return jnp.where(norm > 0, 1 / jnp.where(norm > 0, norm, 1), 0)
