r"""How a step moves the weights: norms, angles, and the parts along and across them.

Every quantity here follows from a handful of inner products of the weights :math:`w`,
the update :math:`u` (what is added to the weights) and the gradient :math:`g`. They are
summed once, leaf by leaf; sums add over leaves, so layers and the whole model cost
nothing more, and a layer is simply the concatenation of its leaves.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.dynamics.layers import Layers, layers_of, pool
from gnomon.parameters.stacks import Stacks
from gnomon.parameters.trees import compute_dtype


class Sums(NamedTuple):
    """Inner products over leaves or layers; NaN where a tree was not given.

    Attributes:
      size: how many numbers there are.
      ww: :math:`|w|^2`.
      wu: ``<w, u>``.
      uu: :math:`|u|^2`.
      gw: ``<g, w>``.
      gg: :math:`|g|^2`.
      gu: ``<g, u>``.
      spread: sum over the leaves of the squared deviations from the leaf's mean weight.
      moved: :math:`|w + u - w_0|^2`, where :math:`w_0` are the weights at the start
        (without an update, of ``w - w_0``).
    """

    size: jax.Array
    ww: jax.Array
    wu: jax.Array
    uu: jax.Array
    gw: jax.Array
    gg: jax.Array
    gu: jax.Array
    spread: jax.Array
    moved: jax.Array


class Motion(NamedTuple):
    r"""What one step does to the weights of each layer; every field is :math:`[k]`.

    NaN marks what cannot be computed: a ratio or an angle whose denominator is zero (a
    zero weight, update or gradient; a vector whose squared norm underflows float32
    counts as zero), and all that needs a tree or a rate that was not given.

    Attributes:
      weight_norm: :math:`|w|` before the step.
      weight_std: standard deviation of the weights around their leaf's mean,
        :math:`\sqrt{\sum_l n_l \sigma_l^2 / \sum_l n_l}` over the leaves of the layer.
      gradient_norm: :math:`|g|`.
      update_norm: :math:`|u|`.
      update_ratio: :math:`|u| / |w|`.
      growth: :math:`|w + u|^2 - |w|^2`, the sum of the next two.
      growth_radial: :math:`2 \langle w, u \rangle`. Of a scale-invariant weight under
        momentum it is not zero: old steps are tangent to old weights only.
      growth_step: :math:`|u|^2`, which no direction of the step avoids.
      radial_update: :math:`\cos^2(w, u)`, the part of the update's squared norm that is
        along the weights; the tangential part is the rest to one.
      radial_gradient: :math:`\cos^2(w, g)`, the same of the gradient.
      gradient_cosine: :math:`\cos(w, g)`. Its mean over batches is zero where the loss
        does not depend on the scale of the weights.
      descent_cosine: :math:`\cos(u, -g)`; one for plain gradient descent.
      angle: radians between :math:`w` and :math:`w + u`, the angular update. What is
        across the weights is found as a difference of squares: of an update along
        them the angle is uncertain by the root of the precision, 3e-4 of the update.
      effective_rate: :math:`\eta / |w|^2`, the learning rate of gradient descent on the
        unit sphere that takes the same step, for scale-invariant weights.
      effective_rate_adam: :math:`\eta / |w|`, the same for methods whose update does
        not depend on the gradient's scale.
      distance: :math:`|w + u - w_0|`, from the weights at the start.
    """

    weight_norm: jax.Array
    weight_std: jax.Array
    gradient_norm: jax.Array
    update_norm: jax.Array
    update_ratio: jax.Array
    growth: jax.Array
    growth_radial: jax.Array
    growth_step: jax.Array
    radial_update: jax.Array
    radial_gradient: jax.Array
    gradient_cosine: jax.Array
    descent_cosine: jax.Array
    angle: jax.Array
    effective_rate: jax.Array
    effective_rate_adam: jax.Array
    distance: jax.Array


def divide(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """A ratio of non-negative scale: NaN, not infinity, where it has no meaning."""
    positive = denominator > 0
    safe = jnp.where(positive, denominator, jnp.ones_like(denominator))
    return jnp.where(positive, numerator / safe, jnp.nan)


def leaf_sums(
    params: optax.Params,
    updates: optax.Updates | None = None,
    grads: optax.Updates | None = None,
    start: optax.Params | None = None,
    *,
    stacked: str | None = None,
) -> Sums:
    """The inner products of every leaf, in one pass over the trees.

    Products and sums are in float32, or in the leaf's own dtype where it is wider.

    Args:
      params: the weights before the step.
      updates: what the step adds to them; a ``None`` leaf adds nothing.
      grads: the gradients, with the structure of ``params`` or ``None`` leaves.
      start: the weights that the distance is measured from.
      stacked: regex of further leaves that stack layers along axis 0.

    Returns:
      Arrays [leaves], in the order of ``jax.tree.leaves(params)``; layers that are
      stacked count as a list of layers (`gnomon.parameters.stacks.unstack`).

    Raises:
      ValueError: if a tree has another structure than ``params``.
    """
    weights: list[jax.Array]
    structure: Any
    layers = Stacks(params, stacked)
    weights, structure = jax.tree.flatten(layers.unstack(params))

    def column(tree: Any) -> list[Any]:
        if tree is None:
            return [None] * len(weights)
        leaves = structure.flatten_up_to(layers.unstack(tree))
        return [
            jnp.zeros_like(w) if leaf is None else leaf
            for w, leaf in zip(weights, leaves, strict=True)
        ]

    columns = zip(weights, column(updates), column(grads), column(start), strict=True)
    rows = [_leaf(w, u, g, w0) for w, u, g, w0 in columns]
    if not rows:
        return Sums(*(jnp.zeros((0,), jnp.float32) for _ in Sums._fields))
    dtype = jnp.result_type(*(row.ww.dtype for row in rows))
    return Sums(
        *(
            jnp.stack([x.astype(dtype) for x in field])
            for field in zip(*rows, strict=True)
        )
    )


def _leaf(w: Any, u: Any, g: Any, start: Any) -> Sums:
    w = jnp.asarray(w)
    dtype = compute_dtype(w.dtype)
    w = w.astype(dtype)
    u, g, start = (
        None if x is None else jnp.asarray(x).astype(dtype) for x in (u, g, start)
    )
    nan = jnp.full((), jnp.nan, dtype)

    def dot(x: jax.Array | None, y: jax.Array | None) -> jax.Array:
        return nan if x is None or y is None else jnp.sum(x * y)

    mean = jnp.sum(w) / max(w.size, 1)
    away = None if start is None else (w if u is None else w + u) - start
    return Sums(
        size=jnp.asarray(w.size, dtype),
        ww=dot(w, w),
        wu=dot(w, u),
        uu=dot(u, u),
        gw=dot(g, w),
        gg=dot(g, g),
        gu=dot(g, u),
        spread=jnp.sum(jnp.square(w - mean)),
        moved=dot(away, away),
    )


def motion(sums: Sums, learning_rate: jax.typing.ArrayLike | None = None) -> Motion:
    """Everything that follows from the inner products.

    Args:
      sums: of leaves or layers.
      learning_rate: of this step; None leaves the effective rates NaN.

    Returns:
      The record, elementwise.

    Example:
      >>> params, updates = {"w": jnp.array([3.0, 4.0])}, {"w": jnp.array([-0.4, 0.3])}
      >>> record = motion(leaf_sums(params, updates), learning_rate=0.1)
      >>> print(record.weight_norm, record.update_ratio, record.radial_update)
      [5.] [0.1] [0.]
      >>> print(record.growth, record.effective_rate)
      [0.25] [0.004]
    """
    weight, update, gradient = (jnp.sqrt(x) for x in (sums.ww, sums.uu, sums.gg))
    if learning_rate is None:
        learning_rate = jnp.nan
    rate = jnp.asarray(learning_rate, weight.dtype)
    along = divide(sums.wu, weight)
    # Not an arc cosine: near one it loses half the digits, and the angles are small.
    across = jnp.sqrt(jnp.maximum(sums.uu - jnp.square(along), 0))
    cos_update = divide(divide(sums.wu, weight), update)
    cos_gradient = divide(divide(sums.gw, weight), gradient)
    return Motion(
        weight_norm=weight,
        weight_std=jnp.sqrt(divide(sums.spread, sums.size)),
        gradient_norm=gradient,
        update_norm=update,
        update_ratio=divide(update, weight),
        growth=2 * sums.wu + sums.uu,
        growth_radial=2 * sums.wu,
        growth_step=sums.uu,
        radial_update=jnp.square(cos_update),
        radial_gradient=jnp.square(cos_gradient),
        gradient_cosine=cos_gradient,
        descent_cosine=-divide(divide(sums.gu, update), gradient),
        angle=jnp.arctan2(across, weight + along),
        effective_rate=divide(rate, sums.ww),
        effective_rate_adam=divide(rate, weight),
        distance=jnp.sqrt(sums.moved),
    )


def layer_motion(
    params: optax.Params,
    updates: optax.Updates | None = None,
    grads: optax.Updates | None = None,
    *,
    start: optax.Params | None = None,
    learning_rate: jax.typing.ArrayLike | None = None,
    layers: Layers | str | None = None,
) -> Motion:
    """The motion of every layer and, in the last row, of the whole model.

    Args:
      params: the weights before the step.
      updates: what the step adds to them.
      grads: the gradients.
      start: the weights that the distance is measured from.
      learning_rate: of this step.
      layers: the grouping, or the regex of one (:func:`layers_of`).

    Returns:
      The record; every field is [layers + 1].

    Example:
      >>> params = {"up": {"w": jnp.ones(4)}, "down": {"w": jnp.zeros(2)}}
      >>> grads = jax.tree.map(jnp.ones_like, params)
      >>> updates = jax.tree.map(lambda g: -0.1 * g, grads)
      >>> record = layer_motion(params, updates, grads)
      >>> print(layers_of(params).names, record.weight_norm, record.angle)
      ('down', 'up') [0. 2. 2.] [       nan 0.         0.07840635]
    """
    if not isinstance(layers, Layers):
        layers = layers_of(params, layers)
    sums = leaf_sums(params, updates, grads, start, stacked=layers.stacked)
    return motion(pool(sums, layers), learning_rate)
