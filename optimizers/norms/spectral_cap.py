"""Spectral caps: hidden matrices whose largest singular value has a limit."""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.matrix.polar_express import polar_express
from gnomon.optimizers.mechanisms.constrain import Constraint, leaf_constraint
from gnomon.parameters.checks import require_choice, require_within
from gnomon.parameters.gram import leading_pair
from gnomon.parameters.matrices import matrices_in, of_matrices, unsharded
from gnomon.parameters.roles import Role, roles
from gnomon.parameters.select import Where, select
from gnomon.parameters.spectral import polar
from gnomon.parameters.trees import compute_dtype, map_leaves, safe_divide
from gnomon.parameters.units import Axes, Rules, resolve_axes, unit_norm

__all__ = ["rms_cap", "spectral_cap"]

Method: TypeAlias = Literal[
    "normalize", "hammer", "soft", "hard", "sign", "svd", "orthogonal"
]
Scale: TypeAlias = Literal["rms", "none"]
# Odd quintics whose composition is near min(1, x) up to 3.5, by the authors.
_HARD = (
    (0.805032, 0.206361, -0.019763),
    (0.649867, 0.162935, -0.011150),
    (1.810259, -0.200265, 0.008251),
    (1.004384, -0.183490, 0.014413),
)
_HARD_UP_TO = 3.5
# Up to here, in limits, the cubics of the soft cap are monotone.
_SOFT_UP_TO = 81 / 62
# The matrix sign of values from here on, of the largest, is found to rounding.
_SIGN_STEPS, _SIGN_FROM = 16, 1e-7
_HALVINGS = 40


class _Leaf(NamedTuple):
    """What a cap knows of a leaf."""

    axes: Axes
    unit: float  # the limit's unit in singular values of the leaf


def spectral_cap(
    limit: jax.typing.ArrayLike = 1.0,
    *,
    method: Method = "sign",
    step_norm: jax.typing.ArrayLike | None = None,
    decay: jax.typing.ArrayLike = 0.0,
    scale: Scale = "rms",
    steps: int = 12,
    constrained: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> Constraint:
    r"""Weights whose singular values are at most a limit.

    A set for :func:`gnomon.optimizers.constrain`. With :math:`W = U \Sigma V^\top`, it
    replaces the singular values and leaves the vectors as they are:

    ================  ==============================================================
    ``"sign"``        :math:`\min(\sigma, c)`, by matrix signs, products alone
    ``"svd"``         the same by a decomposition, slow on accelerators
    ``"normalize"``   :math:`\sigma\, \min(1, c / \sigma_1)`
    ``"hammer"``      :math:`c` in place of the largest, whether above or below; the
                      second may be above
    ``"soft"``        :math:`p_2(p_1(\sigma))` with :math:`p_1 = x - \alpha x^3`,
                      :math:`p_2 = x + \alpha x^3`, and :math:`\alpha` such that the
                      longest that a step can make it, :math:`k = c (1 -
                      \text{decay}) + \text{step}`, comes back to :math:`c`
    ``"hard"``        near :math:`\min(\sigma, c)`, by four polynomials, within 3.4 %
    ``"orthogonal"``  :math:`c`, all of them
    ================  ==============================================================

    in units of :math:`\sqrt{m / n}` for n inputs and m outputs, so that with limit 1
    outputs have at most the root mean square of inputs. After any step
    :math:`\sigma \le c` holds, but for 1.1 % with ``"hard"`` and for ``"hammer"``, from
    any weights: where a polynomial would not hold it, ``"sign"`` is taken.

    Args:
      limit: :math:`c`, default 1.
      method: how, default ``"sign"``.
      step_norm: for ``"soft"``, the largest spectral norm of the next update in the
        units of the limit. Behind Muon's five steps with the factor
        :math:`\sqrt{m / n}` it is the learning rate times 1.14502, and 1.05 for safety.
      decay: for ``"soft"``, the part of the weights that the step's decay takes, the
        learning rate times the weight decay; default 0.
      scale: the unit of the limit, ``"rms"``, the default, :math:`\sqrt{m / n}`, or
        ``"none"``, 1.
      steps: of the Gram iteration that finds :math:`\sigma_1`, a whole number, default
        12: as 4,096 power iterations.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default every leaf that has units
        and is no embedding.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0; each layer has a
        limit of its own.

    Returns:
      The constraint.

    Raises:
      ValueError: if a number is not one number or out of range, ``method`` or ``scale``
        is unknown, or ``"soft"`` has no ``step_norm`` or one that is beyond its reach:
        :math:`k > 1.306\, c`.

    Example:
      >>> w = {"kernel": jnp.array([[3.0, 0.0], [0.0, 0.5]])}
      >>> for method in ("sign", "normalize"):
      ...     capped = spectral_cap(method=method).project(w, ())["kernel"]
      ...     print(*(f"{x:.3f}" for x in jnp.diag(capped)))
      1.000 0.500
      1.000 0.167

    References:
      Newhouse et al., `Training Transformers with Enforced Lipschitz Constants
      <https://arxiv.org/abs/2507.13338>`_, 2025

    Differences:
      Faults of the authors' code that are not here, as noted by others who ran it: its
      hard cap turns the sign of singular values above 3.56 limits; its soft cap takes
      :math:`\alpha = 1` where the step is too short to reach the limit, divides the
      step by :math:`\sqrt{m / n}` once more, and lets values between grow beyond the
      limit for :math:`k > 1.306\, c`. The largest singular value is that of Gram
      iteration, without a random vector. The paper's text was not read.
    """
    require_choice("method", method, Method)
    require_choice("scale", scale, Scale)
    require_within("(0, inf)", limit=limit)
    require_within("[0, 1]", decay=decay)
    require_within("[1, inf)", steps=steps, whole=True)
    if step_norm is not None:
        require_within("[0, inf)", step_norm=step_norm)
    elif method == "soft":
        raise ValueError(
            "step_norm=None: the soft cap needs the largest spectral norm of a step."
        )
    numbers = (limit, decay, step_norm)
    known = not any(isinstance(x, jax.core.Tracer) for x in numbers)
    if method == "soft" and known:
        reach = 1 - float(decay) + float(step_norm or 0) / float(limit)  # type: ignore[arg-type]
        if reach > _SOFT_UP_TO:
            raise ValueError(
                f"step_norm={step_norm} takes weights to {reach:.3f} limits, and the "
                f"soft cap holds up to {_SOFT_UP_TO:.3f}: use method='sign'."
            )

    def plan(params: optax.Params) -> Any:
        def kernels() -> Any:
            return jax.tree.map(
                lambda role: role.role in ("hidden", "head"),
                roles(params, rules, stacked),
                is_leaf=lambda node: isinstance(node, Role),
            )

        chosen = select(params, constrained, kernels, "constrained", stacked)

        def of_leaf(w: Any, is_chosen: bool, axes: Axes) -> tuple[_Leaf | None]:
            if not (is_chosen and axes.reduce):
                return (None,)
            inputs = math.prod(w.shape[axis] for axis in axes.reduce)
            layer = math.prod(w.shape[axis] for axis in axes.layer(len(w.shape)).reduce)
            if not layer:
                return (None,)
            root = math.sqrt(layer / inputs / inputs)
            return (_Leaf(axes, root if scale == "rms" else 1.0),)

        axes = resolve_axes(params, rules, stacked)
        return map_leaves(of_leaf, params, (), chosen, axes)[0]

    def project(w: jax.Array, _: None, leaf: _Leaf) -> jax.Array:
        dtype = compute_dtype(w.dtype)

        def capped(w: jax.Array, limit: jax.Array, reach: jax.Array) -> jax.Array:
            matrices = matrices_in(w, leaf.axes).astype(dtype)
            x = safe_divide(matrices, limit * leaf.unit)
            x = _CAPS[method](x, reach, steps) * (limit * leaf.unit)
            return of_matrices(x, leaf.axes, w.shape).astype(w.dtype)

        bound = jnp.asarray(limit, dtype)
        reach = 1 - jnp.asarray(decay, dtype)
        if step_norm is not None:
            reach = reach + safe_divide(jnp.asarray(step_norm, dtype), bound)
        found: jax.Array = unsharded(capped, w, w, bound, reach)
        return found

    return leaf_constraint(
        "spectral_cap",
        plan,
        project=project,
        allows_decay=method != "orthogonal",
        stacked=stacked,
    )


def rms_cap(
    limit: jax.typing.ArrayLike = 1.0,
    *,
    constrained: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> Constraint:
    """Embeddings whose rows have a root mean square of at most a limit.

    Args:
      limit: the limit, default 1.
      constrained: which leaves: a regex found in the path, or a mask (a tree of bools,
        a prefix, or a function of the parameters); default the embeddings. Of another
        leaf each unit has the limit.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The constraint; longer rows are scaled back.

    Raises:
      ValueError: if ``limit`` is not one number or out of range, or ``constrained``
        matches no leaf.

    Example:
      >>> w = {"embedding": jnp.array([[3.0, 4.0], [0.6, 0.8]])}
      >>> rows = rms_cap().project(w, ())["embedding"]
      >>> print(*(f"{x:.3f}" for x in rows.ravel()))
      0.849 1.131 0.600 0.800

    References:
      Newhouse et al., `Training Transformers with Enforced Lipschitz Constants
      <https://arxiv.org/abs/2507.13338>`_, 2025
    """
    require_within("(0, inf)", limit=limit)

    def plan(params: optax.Params) -> Any:
        def embeddings() -> Any:
            return jax.tree.map(
                lambda role: role.role == "embedding",
                roles(params, rules, stacked),
                is_leaf=lambda node: isinstance(node, Role),
            )

        chosen = select(params, constrained, embeddings, "constrained", stacked)

        def of_leaf(_: Any, is_chosen: bool, axes: Axes) -> tuple[Axes | None]:
            return (axes if is_chosen and axes.reduce else None,)

        axes = resolve_axes(params, rules, stacked)
        return map_leaves(of_leaf, params, (), chosen, axes)[0]

    def project(w: jax.Array, _: None, axes: Axes) -> jax.Array:
        count = math.prod(w.shape[axis] for axis in axes.reduce)
        norm = unit_norm(w, axes)
        longest = jnp.asarray(limit, norm.dtype) * math.sqrt(count)
        factor = safe_divide(longest, norm).astype(w.dtype)
        return jnp.where(norm > longest, w * factor, w)

    return leaf_constraint("rms_cap", plan, project=project, stacked=stacked)


# Each takes [batch, inputs, outputs] in units of the limit, and how far a step can take
# the largest singular value.
def _by_sign(x: jax.Array, _: jax.Array, steps: int) -> jax.Array:
    wide = x.shape[-2] <= x.shape[-1]
    x = x if wide else jnp.swapaxes(x, -2, -1)
    product = _product
    factor = _polar(x)
    # U Sigma U^T, and the projection on what is above the limit.
    root = product(x, jnp.swapaxes(factor, -2, -1))
    root = (root + jnp.swapaxes(root, -2, -1)) / 2
    one = jnp.eye(root.shape[-1], dtype=x.dtype)[None]
    above = (one + _polar(root - one)) / 2
    capped = x - product(above, x) + product(above, factor)
    return capped if wide else jnp.swapaxes(capped, -2, -1)


def _by_svd(x: jax.Array, _: jax.Array, steps: int) -> jax.Array:
    left, values, right = jnp.linalg.svd(x, full_matrices=False)
    return _product(left * jnp.minimum(values, 1)[..., None, :], right)


def _normalize(x: jax.Array, _: jax.Array, steps: int) -> jax.Array:
    largest = leading_pair(x, steps)[0][..., None, None]
    return x / jnp.maximum(largest, 1)


def _hammer(x: jax.Array, _: jax.Array, steps: int) -> jax.Array:
    value, left, right = leading_pair(x, steps)
    change = (1 - value)[..., None] * left
    return x + change[..., :, None] * right[..., None, :]


def _soft(x: jax.Array, reach: jax.Array, steps: int) -> jax.Array:
    def alpha() -> jax.Array:
        """Where the composition takes the reach to 1, by halving; 0 below the limit."""

        def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> Any:
            low, high = ends
            middle = (low + high) / 2
            once = reach - middle * reach**3
            above = once + middle * once**3 > 1
            return jnp.where(above, middle, low), jnp.where(above, high, middle)

        ends = jnp.zeros_like(reach), 1 / (3 * reach**2)
        _, high = jax.lax.fori_loop(0, _HALVINGS, halve, ends)
        return jnp.where(reach > 1, high, 0)

    def cubics(x: jax.Array) -> jax.Array:
        a = alpha()
        x = x - a * _product(_product(x, jnp.swapaxes(x, -2, -1)), x)
        return x + a * _product(_product(x, jnp.swapaxes(x, -2, -1)), x)

    largest = jnp.max(leading_pair(x, steps)[0], initial=0)
    rounding = 1 + 1e-5
    holds = (reach <= _SOFT_UP_TO) & (largest <= jnp.maximum(reach, 1) * rounding)
    return _where(holds, cubics, x)


def _hard(x: jax.Array, reach: jax.Array, steps: int) -> jax.Array:
    def quintics(x: jax.Array) -> jax.Array:
        for a, b, c in _HARD:
            gram = _product(x, jnp.swapaxes(x, -2, -1))
            x = a * x + _product(b * gram + c * _product(gram, gram), x)
        return x

    largest = jnp.max(leading_pair(x, steps)[0], initial=0)
    holds = largest <= _HARD_UP_TO
    return _where(holds, quintics, x)


def _where(
    holds: jax.Array, cap: Callable[[jax.Array], jax.Array], x: jax.Array
) -> jax.Array:
    """The cap where it holds its limit, and else the one that always does."""
    capped: jax.Array = jax.lax.cond(holds, cap, lambda x: _by_sign(x, x, 0), x)
    return capped


def _orthogonal(x: jax.Array, _: jax.Array, steps: int) -> jax.Array:
    return _polar(x)


def _polar(x: jax.Array) -> jax.Array:
    return polar(x, coefficients=polar_express(_SIGN_STEPS, _SIGN_FROM, safety=1.0))


def _product(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.matmul(x, y, precision="highest")


_CAPS: dict[str, Callable[[jax.Array, jax.Array, int], jax.Array]] = {
    "sign": _by_sign,
    "svd": _by_svd,
    "normalize": _normalize,
    "hammer": _hammer,
    "soft": _soft,
    "hard": _hard,
    "orthogonal": _orthogonal,
}
