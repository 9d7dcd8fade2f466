"""CrAM: gradients at pruned weights, so that pruning later costs little."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.perturb import Displaced, perturb
from gnomon.optimizers.mechanisms.sparsity import largest, n_of_m
from gnomon.parameters.checks import ScalarOrSchedule, at_step, require_within
from gnomon.parameters.select import Where, select
from gnomon.parameters.trees import compute_dtype, map_leaves
from gnomon.parameters.units import Axes, Rules, resolve_axes

__all__ = ["cram"]

RECOMMENDED = {
    "cram": dict(
        inner=dict(name="optax.sgd", learning_rate=0.1, momentum=0.9, nesterov=True),
        rho=0.05,
    )
}


def cram(
    inner: optax.GradientTransformation,
    rho: ScalarOrSchedule = 0.05,
    *,
    sparsities: Sequence[jax.typing.ArrayLike] = (0.5, 0.7, 0.9),
    patterns: Sequence[tuple[int, int]] | None = None,
    plus: bool = True,
    pruned: Where | None = None,
    seed: jax.typing.ArrayLike = 0,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Compression-aware minimization, CrAM+ by default.

    At each update one of the sparsities is drawn, and with :math:`T` the pruning of the
    smallest numbers to it and :math:`M` its mask,

    .. math::
      \tilde w &= T(w + \rho\, g) \\
      w &\leftarrow w + \text{inner}\big(M \odot \nabla L(\tilde w)\,[\, + g\,]\big),

    the clean gradient :math:`g` with ``plus``. Weights are ranked by magnitude, all
    pruned leaves together; the others are displaced and not pruned. The model is
    trained dense, and is to be pruned in one go afterwards.

    Args:
      inner: a complete optimizer, such as ``optax.sgd(0.1, momentum=0.9)``.
      rho: :math:`\rho \ge 0`, a scalar or a schedule, default 0.05; the gradient is
        not normalized.
      sparsities: the shares to prune, in [0, 1], of which each update draws one;
        default 0.5, 0.7 and 0.9.
      patterns: in place of sparsities, pairs ``(n, m)`` of which each update draws one:
        the n largest of every m neighbours along the fan-in stay, exactly. Leaves whose
        fan-in axis m does not divide are not pruned.
      plus: whether the gradient at the weights is added, default True; False is CrAM.
      pruned: which leaves: a regex found in the path, or a mask (a tree of bools, a
        prefix, or a function of the parameters); default every leaf that has units.
      seed: of the draws, a whole number, default 0.
      rules: ordered ``(regex, axes)`` pairs, see :func:`units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The optimizer, see :func:`perturb` for what ``update`` needs.

    Raises:
      ValueError: as :func:`perturb`, or if a number is out of range, ``pruned`` matches
        no leaf, or a pattern keeps none or more than all.
      TypeError: if ``inner`` is no transform.

    Example:
      Half of the weights count:

      >>> loss = lambda w: jnp.sum((w - 1.0) ** 2) / 2
      >>> optimizer = cram(optax.sgd(1.0), rho=0.0, sparsities=(0.5,), plus=False)
      >>> w = jnp.array([[3.0], [0.5], [-2.0], [0.0]])
      >>> grads, state = jax.grad(loss)(w), optimizer.init(w)
      >>> print(optimizer.update(grads, state, w, obj_fn=loss)[0].ravel())
      [-2. -0.  3. -0.]

    References:
      Peste et al., `CrAM: A Compression-Aware Minimizer
      <https://arxiv.org/abs/2207.14200>`_, 2023

    Differences:
      The threshold is exact and keeps what equals it, where the authors' code keeps one
      number too few. Their N:M patterns are fixed to 2:4 and 4:8; groups never straddle
      units here.
    """
    require_within("[0, inf)", rho=rho)
    require_within("[0, 4294967295]", seed=seed, whole=True)
    for share in sparsities:
        require_within("[0, 1]", sparsities=share)
    for n, m in patterns or ():
        if not 0 < n <= m:
            raise ValueError(f"patterns has {(n, m)}, and n of m means 0 < n <= m.")
    if len(sparsities if patterns is None else patterns) == 0:
        raise ValueError("sparsities and patterns: there has to be one to draw.")

    def masks(points: Any, chosen: Any, axes: Any, key: jax.Array) -> Any:
        (ranked,) = map_leaves(lambda p, on: (p if on else None,), points, (), chosen)
        if patterns is None:
            shares = jnp.stack([jnp.asarray(s, jnp.float32) for s in sparsities])
            return largest(ranked, jax.random.choice(key, shares))
        which = jax.random.randint(key, (), 0, len(patterns))

        def mask(p: jax.Array, axis: Axes) -> tuple[jax.Array | None]:
            if not axis.reduce:
                return (None,)
            within = axis.reduce[-1]
            found = [
                n_of_m(p, n, m, within)
                if p.shape[within] % m == 0
                else jnp.ones(p.shape, bool)
                for n, m in patterns
            ]
            return (jax.lax.select_n(which, *found) if len(found) > 1 else found[0],)

        return map_leaves(mask, ranked, (), axes)[0]

    def displace(grads: Any, params: Any, count: jax.Array) -> Displaced:
        length = at_step("rho", rho, count)
        axes = resolve_axes(params, rules, stacked)

        def with_units() -> Any:
            return map_leaves(lambda w, a: (bool(a.reduce),), params, (), axes)[0]

        def ahead(g: jax.Array, w: jax.Array) -> tuple[jax.Array]:
            dtype = compute_dtype(w.dtype)
            step = jnp.asarray(length, dtype) * g.astype(dtype)
            return (w.astype(dtype) + step,)

        def keep(x: jax.Array, mask: jax.Array | None) -> tuple[jax.Array]:
            return (x if mask is None else jnp.where(mask, x, jnp.zeros([], x.dtype)),)

        def combine(there: Any, here: Any) -> Any:
            def count_in(g: jax.Array, t: jax.Array, mask: Any) -> tuple[jax.Array]:
                dtype = compute_dtype(g.dtype)
                (masked,) = keep(t.astype(dtype), mask)
                return (masked + g.astype(dtype) if plus else masked,)

            return map_leaves(count_in, here, (), there, kept)[0]

        (points,) = map_leaves(ahead, grads, (), params)
        chosen = select(params, pruned, with_units, "pruned", stacked)
        key = jax.random.fold_in(jax.random.key(seed), count)
        kept = masks(points, chosen, axes, key)
        return Displaced(map_leaves(keep, points, (), kept)[0], combine)

    return perturb(inner, displace, stacked=stacked, name="cram")
