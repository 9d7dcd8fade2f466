"""The norm-growth limiter: no update is much longer than the one before."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.diagnostics import mean_of, tells
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_choice, require_within
from gnomon.parameters.trees import compute_dtype, map_leaves
from gnomon.parameters.units import Axes, resolve_axes, unit_norm

__all__ = ["LimitNormGrowthState", "limit_norm_growth"]

Span = Literal["leaf", "tree"]


@tells(
    "limited_norm",
    "mean of the norms that the next updates may exceed by the factor alone",
    lambda state: mean_of(state.norm),
)
class LimitNormGrowthState(NamedTuple):
    """State of :func:`limit_norm_growth`."""

    # Norms of the last updates, after the limit: a tree of one number a layer, or one
    # number; zero before the first.
    norm: Any


def limit_norm_growth(
    gamma: jax.typing.ArrayLike = 1.01,
    *,
    span: Span = "leaf",
    stacked: str | None = None,
) -> optax.GradientTransformationExtraArgs:
    r"""Shortens an update that is longer than the last one by more than a factor.

    .. math::
      u_t \leftarrow u_t \min\Big(1, \gamma \frac{\|u_{t-1}\|}{\|u_t\|}\Big)

    with :math:`u_{t-1}` as it was emitted. The first update passes, and so does one
    after a zero update, which would keep a leaf at zero for good. A spike of the
    gradient is spread over the steps that the growth by :math:`\gamma` takes.

    Args:
      gamma: the largest growth :math:`\gamma` a step, at least 1, default 1.01.
      span: one norm a ``"leaf"``, the default, or one of the whole ``"tree"``.
      stacked: regex of the leaves that stack layers along axis 0; each layer has a norm
        of its own.

    Returns:
      The transform.

    Raises:
      ValueError: if ``gamma`` is not one number or out of range, or ``span`` is
        unknown.

    Example:
      >>> limit = limit_norm_growth(2.0)
      >>> state = limit.init(jnp.zeros(1))
      >>> for size in (1.0, 10.0, 10.0, 3.0):
      ...     u, state = limit.update(jnp.full(1, size), state)
      ...     print(u, end=" ")
      [1.] [2.] [4.] [3.]

    References:
      Chen et al., `Fira: Can We Achieve Full-rank Training of LLMs Under Low-rank
      Constraint? <https://arxiv.org/abs/2410.01623>`_, 2024

    Differences:
      The authors' code adds 1e-8 to the last norm, and so lets an update that follows a
      zero one grow to 1e-8 alone.
    """
    require_within("[1, inf]", gamma=gamma)
    require_choice("span", span, Span)

    def norms(tree: Any) -> Any:
        if span == "tree":
            leaves = [unit_norm(x, Axes().layer(x.ndim)) for x in jax.tree.leaves(tree)]
            squares = [jnp.square(x).reshape(()).astype(float) for x in leaves]
            return jnp.sqrt(sum(squares, jnp.zeros([])))

        def of_leaf(u: Any, axes: Axes) -> tuple[jax.Array]:
            return (unit_norm(u, axes.layer(u.ndim)),)

        return map_leaves(of_leaf, tree, (), resolve_axes(tree, stacked=stacked))[0]

    def init_fn(params: Any) -> LimitNormGrowthState:
        return LimitNormGrowthState(norms(jax.tree.map(jnp.zeros_like, params)))

    def update_fn(
        updates: Any, state: LimitNormGrowthState, params: Any = None, **extra_args: Any
    ) -> tuple[Any, LimitNormGrowthState]:
        def factor(norm: jax.Array, last: jax.Array) -> jax.Array:
            bound = jnp.asarray(gamma, norm.dtype) * last
            grows = (last > 0) & (norm > bound)
            return jnp.where(grows, bound / jnp.where(norm > 0, norm, 1), 1)

        def scaled(u: jax.Array, by: jax.Array) -> jax.Array:
            dtype = compute_dtype(u.dtype)
            return (u.astype(dtype) * by.astype(dtype)).astype(u.dtype)

        now = norms(updates)
        if span == "tree":
            by = factor(now, state.norm)
            limited = jax.tree.map(lambda u: scaled(u, by), updates)
            return limited, LimitNormGrowthState(now * by)

        def of_leaf(
            u: jax.Array, last: jax.Array, norm: jax.Array
        ) -> tuple[jax.Array, jax.Array]:
            by = factor(norm, last)
            return scaled(u, by), norm * by

        limited, kept = map_leaves(of_leaf, updates, (state.norm,), now)
        return limited, LimitNormGrowthState(kept)

    return transformation("limit_norm_growth", init_fn, update_fn)
