"""Learning rates that stay the best ones when a network is made wider.

`width` says by what each layer has grown and what its learning rate is multiplied by;
here that becomes a link of a chain, a wrapper of any optimizer, and the initial values
that go with muP.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.composition import refuse_decay
from gnomon.optimizers.mechanisms.descent import DescendState
from gnomon.optimizers.mechanisms.inner import complete
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.optimizers.width import (
    Alignment,
    Base,
    Growth,
    Kind,
    Rule,
    learning_rate_factors,
    mup_rule,
    standard_rule,
    width_growth,
)
from gnomon.parameters.checks import (
    ScalarOrSchedule,
    at_step,
    require_params,
    require_within,
)
from gnomon.parameters.trees import broadcast_mask, compute_dtype, map_leaves
from gnomon.parameters.units import Axes, Rules, resolve_axes

__all__ = ["mup", "mup_initialization", "scale_by_width", "standard_parameterization"]


def scale_by_width(
    base: Base,
    rule: Rule,
    *,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """Multiplies each leaf's updates by its learning-rate factor.

    The factors follow from shapes and are constants of the compiled step. A leaf whose
    factor is one, which all are at the base width, keeps its updates to the bit.

    Args:
      base: the parameters of the base model as arrays or ``jax.ShapeDtypeStruct``, or
        a function of the parameters that returns them.
      rule: from :func:`mup_rule` or :func:`standard_rule`, or a function of one's own.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform. It may stand before or after the learning rate, and behind what
      depends on the scale of updates (clipping by their norm, say).

    Raises:
      ValueError: if the base does not fit the parameters.

    Example:
      >>> base = {"kernel": jnp.zeros((2, 2))}
      >>> link = scale_by_width(base, mup_rule("adam"))
      >>> updates = {"kernel": jnp.ones((8, 8))}
      >>> link.update(updates, link.init(updates))[0]["kernel"][0, 0]
      Array(0.25, dtype=float32)
    """

    def factors(tree: optax.Params) -> Any:
        return learning_rate_factors(tree, base, rule, rules, stacked)

    def init_fn(params: optax.Params) -> optax.EmptyState:
        factors(params)  # refuses a base that does not fit
        return optax.EmptyState()

    def update_fn(
        updates: optax.Updates,
        state: optax.EmptyState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.EmptyState]:
        del params, extra_args

        def scale(update: jax.Array, factor: float) -> tuple[jax.Array]:
            if factor == 1:
                return (update,)
            dtype = compute_dtype(update.dtype)
            scaled = update.astype(dtype) * jnp.asarray(factor, dtype)
            return (scaled.astype(update.dtype),)

        return map_leaves(scale, updates, (), factors(updates))[0], state

    return transformation("scale_by_width", init_fn, update_fn, complex_leaves=True)


def mup(
    inner: optax.GradientTransformation,
    base: Base,
    *,
    kind: Kind = "adam",
    output_multiplier: bool = False,
    independent_decay: ScalarOrSchedule | None = None,
    weight_decay_mask: optax.MaskOrFn | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""An optimizer whose learning rate transfers across width (muP).

    The updates of ``inner`` are multiplied, leaf by leaf, by the factors of
    :func:`mup_rule`. The model has to start as muP asks, see
    :func:`mup_initialization`, or ``base_width`` of
    :class:`gnomon.models.TransformerLM`. At the base width it is ``inner``, to the bit.

    Weight decay inside ``inner``, as that of ``optax.adamw``, is multiplied by the
    factors too: it then gets weaker with width where the learning rate does, and the
    time :math:`1 / (\eta \lambda)` over which a hidden weight forgets grows with
    width. ``independent_decay`` is :math:`\lambda'` in

    .. math::
      - \lambda'_t w

    which is added behind the factors, so that this time, :math:`1 / \lambda'`, is the
    same at every width. No learning rate multiplies it: :math:`\lambda' = \eta \lambda`
    is what AdamW's decay :math:`\lambda` does at the base width.

    Args:
      inner: a complete optimizer, such as ``optax.adam(1e-3)``, with the learning rate
        that was tuned at the base width.
      base: the parameters of the base model as arrays or ``jax.ShapeDtypeStruct``
        (:func:`gnomon.models.parameter_shapes`), or a function of the parameters that
        returns them.
      kind: "adam", the default, or "sgd", see :func:`mup_rule`.
      output_multiplier: whether the model divides its outputs by the growth in width,
        default False. Without effect where the readout is tied to the embedding.
      independent_decay: a scalar or a schedule; None, the default, adds none.
      weight_decay_mask: which leaves decay so, as optax's argument of that name.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The optimizer. A wrapper that keeps norms fixed goes around it, not inside.

    Raises:
      ValueError: if the base does not fit the parameters, ``kind`` is unknown,
        ``inner`` climbs, or the decay is not one number or out of range.
      TypeError: if ``inner`` is no transform.

    Example:
      Four times the width, a quarter of the rate:

      >>> base = {"kernel": jnp.zeros((2, 2))}
      >>> w = {"kernel": jnp.ones((8, 8))}
      >>> optimizer = mup(optax.sign_sgd(0.1), base, independent_decay=0.05)
      >>> updates, _ = optimizer.update(w, optimizer.init(w), w)
      >>> print(updates["kernel"][0, 0])  # -(0.1 / 4 + 0.05)
      -0.075

    References:
      Yang et al., Tensor Programs V: Tuning Large Neural Networks via Zero-Shot
      Hyperparameter Transfer, 2022 (https://arxiv.org/abs/2203.03466)
      Wang & Aitchison, How to set AdamW's weight decay as you scale model and dataset
      size, 2024 (https://arxiv.org/abs/2405.13698): the decay that does not shrink.

    Differences:
      The authors' package keeps the readout's learning rate and multiplies inside of a
      special readout layer (``output_multiplier=True``), and marks dimensions on the
      parameters themselves; here shapes alone are compared. Epsilon of Adam is not
      scaled: gradients of hidden layers shrink with width, and have to stay above it.
    """
    return _transfer(
        mup_rule(kind, output_multiplier=output_multiplier),
        inner,
        base,
        independent_decay,
        weight_decay_mask,
        rules,
        stacked,
    )


def standard_parameterization(
    inner: optax.GradientTransformation,
    base: Base,
    *,
    kind: Kind = "adam",
    alignment: Alignment = "full",
    independent_decay: ScalarOrSchedule | None = None,
    weight_decay_mask: optax.MaskOrFn | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    """An optimizer with one learning rate a layer, for networks as they usually start.

    As :func:`mup`, with the factors of :func:`standard_rule`: no output multiplier, and
    the readout starts at variance 1 / fan-in like every other layer. It must not be
    tied to the embedding, which needs another rate than a readout.

    Args:
      inner: as :func:`mup`'s, like all that is not listed here.
      base: the base model's parameters.
      kind: "adam", the default, or "sgd".
      alignment: "full", the default, or "none", see :func:`standard_rule`.
      independent_decay: decay that the factors do not touch.
      weight_decay_mask: which leaves decay so.
      rules: ordered ``(regex, axes)`` pairs.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The optimizer.

    Raises:
      ValueError: as :func:`mup`, or if ``alignment`` is unknown.
      TypeError: if ``inner`` is no transform.

    Example:
      >>> base = {"kernel": jnp.zeros((2, 2))}
      >>> w = {"kernel": jnp.ones((8, 8))}
      >>> optimizer = standard_parameterization(optax.sgd(0.1), base, kind="sgd")
      >>> print(optimizer.update(w, optimizer.init(w), w)[0]["kernel"][0, 0])
      -0.05

    References:
      Everett et al., Scaling Exponents Across Parameterizations and Optimizers, 2024
      (https://arxiv.org/abs/2407.05872)
    """
    return _transfer(
        standard_rule(kind, alignment=alignment),
        inner,
        base,
        independent_decay,
        weight_decay_mask,
        rules,
        stacked,
    )


def mup_initialization(
    params: optax.Params,
    base: optax.Params,
    *,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> Any:
    r"""Gives a wide network the initial variances of muP.

    Each leaf is rescaled to the root mean square of the base model's times

    ==============  ======================
    layer           factor
    ==============  ======================
    input, vector   1
    hidden          :math:`m_{in}^{-1/2}`
    output          :math:`m_{in}^{-1}`
    ==============  ======================

    whatever the model's own initialization is; a leaf of zeros stays zero. Hidden
    layers that start at variance 1 / fan-in hardly move. For a model without an output
    multiplier.

    Args:
      params: the wide model's initial parameters.
      base: those of the base model, drawn in the same way: here values count, not
        only shapes. A small leaf has a noisy root mean square, of n numbers by
        :math:`1 / \sqrt{2n}`.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The parameters to start from; leaves that have not grown are those of ``params``.

    Raises:
      ValueError: if the base does not fit the parameters.

    Example:
      >>> base = {"head": {"kernel": jnp.full((4, 2), 0.5)}}
      >>> wide = {"head": {"kernel": jnp.full((16, 2), 0.25)}}
      >>> mup_initialization(wide, base)["head"]["kernel"][0]
      Array([0.125, 0.125], dtype=float32)

    References:
      Yang et al., Tensor Programs V, 2022 (https://arxiv.org/abs/2203.03466), table 3
    """

    def rms(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
        wide = x.astype(compute_dtype(x.dtype))
        return jnp.sqrt(jnp.mean(jnp.square(wide), axis=axes, keepdims=True))

    def rescale(
        w: jax.Array, growth: Growth, of_units: Axes, small: jax.Array
    ) -> tuple[jax.Array]:
        if growth.role == "fixed":
            return (w,)
        power = {"hidden": -0.5, "output": -1.0}.get(growth.role, 0.0)
        layer = of_units.layer(w.ndim).reduce
        now, wanted = rms(w, layer), rms(small, layer) * growth.fan_in**power
        factor = jnp.where(now > 0, wanted / jnp.where(now > 0, now, 1), 1)
        return ((w.astype(factor.dtype) * factor).astype(w.dtype),)

    growth = width_growth(params, base, rules, stacked)
    axes = resolve_axes(params, rules, stacked)
    return map_leaves(rescale, params, (), growth, axes, base)[0]


def _transfer(
    rule: Rule,
    inner: optax.GradientTransformation,
    base: Base,
    decay: ScalarOrSchedule | None,
    mask: optax.MaskOrFn | None,
    rules: Rules | None,
    stacked: str | None,
) -> optax.GradientTransformationExtraArgs:
    links = [
        layered(complete(inner), stacked),
        scale_by_width(base, rule, rules=rules, stacked=stacked),
    ]
    if decay is not None:
        links.append(_decay(decay, mask, stacked))
    chain = optax.with_extra_args_support(optax.chain(*links))
    return transformation("scaling by width", *chain, complex_leaves=True)


def _decay(
    decay: ScalarOrSchedule, mask: optax.MaskOrFn | None, stacked: str | None
) -> optax.GradientTransformationExtraArgs:
    """Adds ``-decay w`` to updates that are steps already."""
    require_within("[0, inf)", independent_decay=decay)

    def init_fn(params: optax.Params) -> DescendState:
        refuse_decay("independent_decay", decay, mask, params)
        return DescendState(count=jnp.zeros([], jnp.int32))

    def update_fn(
        updates: optax.Updates,
        state: DescendState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, DescendState]:
        del extra_args
        require_params(params, "independent_decay")
        rate = at_step("independent_decay", decay, state.count)

        def add(update: jax.Array, w: jax.Array, decays: bool) -> tuple[jax.Array]:
            if not decays:
                return (update,)
            dtype = compute_dtype(update.dtype)
            moved = update.astype(dtype) - jnp.asarray(rate, dtype) * w.astype(dtype)
            return (moved.astype(update.dtype),)

        decaying = broadcast_mask(mask, params, stacked)
        updates = map_leaves(add, updates, (), params, decaying)[0]
        return updates, DescendState(count=optax.safe_increment(state.count))

    return transformation("independent_decay", init_fn, update_fn, complex_leaves=True)
