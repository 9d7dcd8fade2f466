"""SAM, ASAM, and SAM on the normalization layers alone."""

import re
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.perturb import Displaced, perturb
from gnomon.parameters.checks import (
    ScalarOrSchedule,
    at_step,
    require_choice,
    require_within,
)
from gnomon.parameters.paths import path_string
from gnomon.parameters.products import inner_product
from gnomon.parameters.roles import roles
from gnomon.parameters.select import Where, select
from gnomon.parameters.trees import compute_dtype, map_leaves, safe_divide
from gnomon.parameters.units import Rules, resolve_axes, unit_norm

__all__ = ["asam", "normalization_leaves", "sam"]

View: TypeAlias = Literal["element", "unit", "layer"]
Ball: TypeAlias = Literal["l2", "max"]

_SGD = dict(name="optax.sgd", learning_rate=0.1, momentum=0.9, nesterov=True)
RECOMMENDED = {
    "sam": dict(inner=_SGD, rho=0.05),
    "asam": dict(inner=_SGD, rho=0.5, eta=0.01),
    "sam_on": dict(
        name="gnomon.optimizers.asam",
        inner=_SGD,
        rho=0.5,
        eta=0.01,
        perturbed={"ref": "gnomon.optimizers.normalization_leaves"},
    ),
}

# A module of a normalization layer: LayerNorm_0, norm, final_norm, bn1, ln_2.
_NORMALIZATION = re.compile(r"(?i)(?:^|/)(?:[^/]*norm[^/]*|(?:[^/]*_)?(?:bn|ln)_?\d*)/")
_GAIN_OR_BIAS = re.compile(r"(?i)(?:^|/)(?:scale|gain|gamma|weight|bias|beta)$")


def sam(
    inner: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.05,
    *,
    perturbed: Where | None = None,
    every: jax.typing.ArrayLike = 1,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Sharpness-aware minimization: the gradient at the top of a small slope.

    .. math::
      e &= \rho\, g / \|g\| \\
      w &\leftarrow w + \text{inner}\big(\nabla L(w + e)\big)

    The norm is that of the perturbed leaves together, in float32 or wider; a gradient
    of zero displaces nothing. It is a first-order answer to the worst loss within
    :math:`\rho` of the weights. A step costs two gradients.

    Args:
      inner: a complete optimizer, such as ``optax.sgd(0.1, momentum=0.9)``.
      rho: :math:`\rho`, the length of the displacement, a scalar or a schedule, default
        0.05. In bfloat16 weights a displacement below :math:`2^{-9}` of a weight is
        rounded away.
      perturbed: which leaves are displaced: a regex found in the path, or a mask (a
        tree of bools, a prefix, or a function of the parameters); default all. With
        :func:`normalization_leaves` it is SAM-ON.
      every: period of such updates in updates, a whole number, default 1; those between
        are the plain ones of ``inner``.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The optimizer, see :func:`perturb` for what ``update`` needs.

    Raises:
      ValueError: as :func:`perturb`, or if ``rho`` is not one number or negative, or
        ``perturbed`` matches no leaf.
      TypeError: if ``inner`` is no transform.

    Example:
      Where the loss is a slope, nothing changes; in a valley the gradient is larger:

      >>> loss = lambda w: jnp.sum(jnp.array([1.0, 10.0]) * w**2) / 2
      >>> optimizer = sam(optax.sgd(0.1), rho=0.5)
      >>> w = jnp.array([1.0, 0.1])
      >>> grads, state = jax.grad(loss)(w), optimizer.init(w)
      >>> updates, state = optimizer.update(grads, state, w, obj_fn=loss)
      >>> print(jnp.round(1000 * updates))
      [-135. -454.]

    References:
      Foret et al., `Sharpness-Aware Minimization for Efficiently Improving
      Generalization <https://arxiv.org/abs/2010.01412>`_, 2021; Mueller et al.,
      `Normalization Layers Are All That Sharpness-Aware Minimization Needs
      <https://arxiv.org/abs/2306.04226>`_, 2023

    Differences:
      Where the batch is spread over devices the gradient is that of all, while the
      paper displaces each device's part by its own gradient (m-sharpness). The authors'
      code adds 1e-12 to the norm.
    """
    require_within("[0, inf)", rho=rho)

    def displace(grads: Any, params: Any, count: jax.Array) -> Displaced:
        ones = jax.tree.map(lambda w: jnp.ones([], compute_dtype(w.dtype)), params)
        chosen = _chosen(perturbed, params, stacked)
        return _point(grads, params, chosen, ones, at_step("rho", rho, count), "l2")

    return perturb(inner, displace, every=every, stacked=stacked, name="sam")


def asam(
    inner: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.5,
    *,
    eta: jax.typing.ArrayLike = 0.01,
    view: View = "element",
    norm: Ball = "l2",
    scale_biases: bool = False,
    perturbed: Where | None = None,
    every: jax.typing.ArrayLike = 1,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Adaptive SAM: a displacement in proportion to the weights.

    With :math:`t = |w| + \eta`, of each number, unit or layer,

    .. math::
      e = \rho\, \frac{t^2 g}{\|t\, g\|}
      \quad\text{or}\quad e = \rho\, t\, \mathrm{sign}(g)

    by ``norm``, so that :math:`\|e / t\| = \rho`: the ball in which the worst loss is
    looked for follows the scale of the weights, and a network of the same function with
    other scales is displaced to the same function. Else as :func:`sam`.

    Args:
      inner: a complete optimizer, such as ``optax.sgd(0.1, momentum=0.9)``.
      rho: :math:`\rho`, a scalar or a schedule, in units of the weights, default 0.5.
      eta: :math:`\eta \ge 0`, so that a weight of zero is displaced too, default 0.01.
      view: :math:`|w|` is that of each number, ``"element"``, the default, the norm of
        each ``"unit"``, or the Frobenius norm of each layer's leaf, ``"layer"``.
      norm: the ball, ``"l2"``, the default, or ``"max"``.
      scale_biases: whether biases are displaced in proportion too; default they have
        :math:`t = 1`.
      perturbed: as of :func:`sam`.
      every: as of :func:`sam`.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The optimizer, see :func:`perturb` for what ``update`` needs.

    Raises:
      ValueError: as :func:`sam`, or if ``eta`` is not one number or negative, or
        ``view`` or ``norm`` is none of the above.
      TypeError: if ``inner`` is no transform.

    Example:
      >>> loss = lambda w: jnp.sum(w**2) / 2
      >>> optimizer = asam(optax.sgd(1.0), rho=0.5, eta=0.0)
      >>> w = jnp.array([2.0, 0.5])
      >>> updates, _ = optimizer.update(w, optimizer.init(w), w, obj_fn=loss)
      >>> print(jnp.round(1000 * updates))
      [-2998.  -516.]

    References:
      Kwon et al., `ASAM: Adaptive Sharpness-Aware Minimization for Scale-Invariant
      Learning of Deep Neural Networks <https://arxiv.org/abs/2102.11600>`_, 2021;
      Mueller et al., `Normalization Layers Are All That Sharpness-Aware Minimization
      Needs <https://arxiv.org/abs/2306.04226>`_, 2023

    Differences:
      In the code of SAM-ON a layer has :math:`\|w\| (1 + \eta)`, where the sum is
      meant, and without a view :math:`t` is the signed weight, whose step in the
      max norm points downhill for negative weights. Neither is here. The recipe in its
      description takes biases raw, as the default here; its script scales them.
    """
    require_within("[0, inf)", rho=rho, eta=eta)
    require_choice("view", view, View)
    require_choice("norm", norm, Ball)

    def displace(grads: Any, params: Any, count: jax.Array) -> Displaced:
        def scale(w: jax.Array, axes: Any, role: Any) -> tuple[jax.Array]:
            wide = w.astype(compute_dtype(w.dtype))
            if role.role == "bias" and not scale_biases:
                return (jnp.ones_like(wide),)
            # A leaf without units is the absolute value of each of its numbers.
            within = axes.layer(w.ndim) if view == "layer" else axes
            size = jnp.abs(wide) if view == "element" else unit_norm(wide, within)
            return (size + jnp.asarray(eta, wide.dtype),)

        axes = resolve_axes(params, rules, stacked)
        kinds = roles(params, rules, stacked)
        (scales,) = map_leaves(scale, params, (), axes, kinds)
        chosen = _chosen(perturbed, params, stacked)
        return _point(grads, params, chosen, scales, at_step("rho", rho, count), norm)

    return perturb(inner, displace, every=every, stacked=stacked, name="asam")


def normalization_leaves(params: optax.Params) -> Any:
    """A mask of the gains and biases of normalization layers, found by their names.

    Args:
      params: the parameters.

    Returns:
      A tree of bools: True for a leaf ``scale``, ``gain``, ``gamma``, ``weight``,
      ``bias`` or ``beta`` inside of a module with ``norm`` in its name, or one called
      ``bn`` or ``ln``, with a number or not.

    Example:
      >>> leaf = jnp.ones(2)
      >>> normalization_leaves({"ln_1": {"scale": leaf}, "mlp": {"bias": leaf}})
      {'ln_1': {'scale': True}, 'mlp': {'bias': False}}
    """

    def named(path: tuple[Any, ...], _: Any) -> bool:
        text = path_string(path)
        return bool(_NORMALIZATION.search(text) and _GAIN_OR_BIAS.search(text))

    return jax.tree_util.tree_map_with_path(named, params)


def _chosen(perturbed: Where | None, params: Any, stacked: str | None) -> Any:
    def everything() -> Any:
        return jax.tree.map(lambda _: True, params)

    return select(params, perturbed, everything, "perturbed", stacked)


def _point(
    grads: Any, params: Any, chosen: Any, scales: Any, rho: Any, norm: Ball
) -> Displaced:
    """``w + rho t^2 g / |t g|`` on the chosen leaves, or ``w + rho t sign(g)``."""

    def scaled(g: jax.Array, t: jax.Array, on: bool) -> tuple[jax.Array | None]:
        return (t * g.astype(t.dtype) if on else None,)

    (slopes,) = map_leaves(scaled, grads, (), scales, chosen)
    length = jnp.sqrt(inner_product(slopes, slopes)) if norm == "l2" else None

    def move(g: jax.Array, w: jax.Array, t: jax.Array, slope: Any) -> tuple[jax.Array]:
        w = w.astype(t.dtype)
        if slope is None:
            return (w,)
        if length is None:
            unit = jnp.sign(slope)
        else:
            unit = safe_divide(slope, length.astype(t.dtype))
        return (w + jnp.asarray(rho, t.dtype) * t * unit,)

    return Displaced(map_leaves(move, grads, (), params, scales, slopes)[0])
