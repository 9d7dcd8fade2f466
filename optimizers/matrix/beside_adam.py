"""Hidden matrices by a rule for matrices, and all other leaves by Adam."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.leafwise import WIDE, Leafwise, leafwise
from gnomon.optimizers.mechanisms.moments import adam_step
from gnomon.parameters.roles import Role, roles, warn_of_guesses
from gnomon.parameters.select import Where, select
from gnomon.parameters.trees import compute_dtype, map_leaves
from gnomon.parameters.units import Axes, Rules, resolve_axes


class Place(NamedTuple):
    """What a rule knows of a leaf, as ``h.axes``."""

    axes: Axes
    is_matrix: bool  # else it is Adam's


def hidden_kernels(
    chosen: Where | None, rules: Rules | None, stacked: str | None, name: str
) -> Callable[[Any], Any]:
    """Which leaves are hidden matrices, as a function of the parameters.

    Args:
      chosen: the leaves; default those of the role, see `gnomon.parameters.roles`.
      rules: ordered ``(regex, axes)`` pairs, see `units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.
      name: who asks, for messages.

    Returns:
      A function from parameters to a tree of :class:`Place`. A chosen leaf that has no
      units is no matrix.
    """

    def plan(params: optax.Params) -> Any:
        def by_role() -> Any:
            kinds = roles(params, rules, stacked)
            warn_of_guesses(kinds, name, "name the leaves by matrices=...")
            return jax.tree.map(
                lambda role: role.role == "hidden",
                kinds,
                is_leaf=lambda node: isinstance(node, Role),
            )

        here = select(params, chosen, by_role, "matrices", stacked)
        axes = resolve_axes(params, rules, stacked)

        def place(_: Any, axes: Axes, is_matrix: bool) -> tuple[Place]:
            return (Place(axes, bool(is_matrix and axes.reduce)),)

        return map_leaves(place, params, (), axes, here)[0]

    return plan


def beside_adam(
    name: str,
    rule: Callable[..., tuple[jax.Array, ...]],
    state: Callable[..., optax.OptState],
    initial: Callable[[jax.Array, Axes], tuple[jax.Array, ...]],
    hyperparameters: Mapping[str, Mapping[str, Any]],
    *,
    slots: int,
    adam: Mapping[str, Any],
    matrices: Where | None,
    rules: Rules | None,
    stacked: str | None,
    mu_dtype: jax.typing.DTypeLike | None = None,
) -> Leafwise:
    r"""Makes a transform of a rule for matrices; the other leaves are Adam's.

    Args:
      name: its name, for messages.
      rule: ``rule(h, g, w, mu, *slots) -> (direction, mu, *slots)``, as of `leafwise`,
        on hidden matrices; ``h.axes`` is a :class:`Place`.
      state: makes the state of the count, ``mu`` and the slots.
      initial: what the slots hold at first, of zeros in the shape of the leaf, in
        float32 or wider, and its axes. The first one of Adam's leaves is the second
        moment; the others are one zero each.
      hyperparameters: as of `leafwise`.
      slots: how many there are, without ``mu``.
      adam: Adam's ``b1``, ``b2`` and ``eps``; the ``scale`` of its direction, default
        1; and whether it is ``late``, and leaves the first update out, default False.
      matrices: the leaves that the rule is for, default the hidden ones.
      rules: ordered ``(regex, axes)`` pairs.
      stacked: regex of the leaves that stack layers along axis 0.
      mu_dtype: dtype of ``mu``, default that of the parameters.

    Returns:
      The transform, ascent-signed. It needs ``params`` in ``update``.
    """
    plan = hidden_kernels(matrices, rules, stacked, name)

    def first(params: Any) -> list[Any]:
        zeros = jax.tree.map(
            lambda w: jnp.zeros_like(w, dtype=compute_dtype(w.dtype)), params
        )

        def of_leaf(w: jax.Array, *rest: Any) -> tuple[jax.Array, ...]:
            place: Place = rest[-1]
            if place.is_matrix:
                return w, *initial(w, place.axes)
            return w, w, *(jnp.zeros((1,), w.dtype) for _ in range(slots - 1))

        made = map_leaves(of_leaf, zeros, [zeros] * slots, plan(params))
        return list(made)

    def each(h: Any, g: jax.Array, w: jax.Array, *kept: jax.Array) -> Any:
        if h.axes.is_matrix:
            return rule(h, g, w, *kept)
        mu, nu, *unused = kept
        t = h.t
        if adam.get("late", False):
            t, g = h.t - 1, jnp.where(h.t == 1, 0, g)
        u, mu, nu = adam_step(g, mu, nu, h.adam_b1, h.adam_b2, h.adam_eps, t)
        return h.adam_scale * u, mu, nu, *unused

    numbers = {interval: dict(of) for interval, of in hyperparameters.items()}
    numbers.setdefault("[0, 1)", {}).update(adam_b1=adam["b1"], adam_b2=adam["b2"])
    numbers.setdefault("[0, inf)", {}).update(
        adam_eps=adam["eps"], adam_scale=adam.get("scale", 1.0)
    )
    return leafwise(
        name,
        each,
        state,
        (mu_dtype, *[WIDE] * slots),
        numbers,
        plan=plan,
        initial=first,
        rules=rules,
        stacked=stacked,
    )
