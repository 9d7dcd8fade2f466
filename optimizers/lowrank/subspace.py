r"""Moments in a subspace of each matrix: one mechanism for a family of methods.

On a hidden matrix with gradient :math:`G`, oriented so that its first axis is the side
that is projected, a basis :math:`P` of orthonormal columns, :math:`R = P^\top G`:

.. math::
  W \leftarrow W - \eta\, (s\, P\, N(R) + S)

A method is a choice of five: the rule :math:`N` of the moments, which live in the
coordinates :math:`R`; the basis; the refresh, when it is found anew; the transport of
the moments into the new one; and the residual :math:`S`, what is made of the rest
:math:`G - P R`.

The rule is a function of numbers, not any optax transform: transport has to know what
each of its moments means, and a leaf that is not projected takes the same rule.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.lowrank.bases import BASES, Name, Side, is_outputs
from gnomon.optimizers.lowrank.choices import (
    Arrays,
    Inner,
    Refresh,
    Residual,
    Transport,
    product,
)
from gnomon.optimizers.matrix.beside_adam import Place, hidden_kernels
from gnomon.optimizers.mechanisms.constrain import when
from gnomon.optimizers.mechanisms.diagnostics import means, note
from gnomon.optimizers.mechanisms.leafwise import WIDE, Leafwise, leafwise
from gnomon.parameters.checks import require_choice, require_within
from gnomon.parameters.matrices import (
    matrices_in,
    matrix_axes,
    of_matrices,
    unsharded,
)
from gnomon.parameters.select import Where
from gnomon.parameters.trees import compute_dtype, map_leaves, safe_divide
from gnomon.parameters.units import Axes, Rules

CAPTURED = means(
    "captured", "share of the squared gradients of matrices inside of their subspaces"
)


def subspace(
    name: str,
    state: Callable[..., optax.OptState],
    inner: Inner,
    *,
    basis: Name,
    refresh: Refresh,
    transport: Transport,
    residual: Residual,
    every: jax.typing.ArrayLike,
    rank: int | None,
    side: Side,
    numbers: Mapping[str, Mapping[str, Any]],
    of_moment: bool = False,
    matrices: Where | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
) -> Leafwise:
    """Makes a transform of the five choices.

    Args:
      name: its name, for messages.
      state: makes the state of the count, the moments, the basis, the slots of the
        refresh and those of the residual. Stacked layers are the first axis of all.
      inner: the rule of the moments, ``ADAM`` or ``AVERAGE``.
      basis: how a basis is found.
      refresh: when.
      transport: what then becomes of the moments.
      residual: what is made of the rest of the gradient.
      every: updates between two bases, as the refresh takes them.
      rank: vectors of a basis; a matrix whose shorter side is not longer takes the rule
        as it is. None for all of that side.
      side: the side that is projected.
      numbers: hyperparameters as of `leafwise`: what the rule reads, and ``scale``,
        the factor of what comes out of the subspace.
      of_moment: whether the basis is that of the first moment with the new gradient in
        it, not of the gradient.
      matrices: the leaves that are projected, default the hidden matrices.
      rules: ordered ``(regex, axes)`` pairs.
      stacked: regex of the leaves that stack layers along axis 0.

    Returns:
      The transform, ascent-signed. It needs ``params`` in ``update``.
    """
    require_choice("basis", basis, Name)
    require_choice("side", side, Side)
    require_within("[1, inf)", every=every, whole=True)
    if rank is not None:
        require_within("[1, inf)", rank=rank, whole=True)
        rank = int(rank)
    kind = BASES[basis]
    hidden = hidden_kernels(matrices, rules, stacked, name)

    def shape_of(w: Any, axes: Axes) -> tuple[int, int, int, bool]:
        """Layers, the projected side, the other, and whether it is the outputs."""
        parts = matrix_axes(axes, w.ndim)
        assert parts is not None
        layers, inputs, outputs = (math.prod(w.shape[a] for a in p) for p in parts)
        turned = is_outputs(side, inputs, outputs)
        return layers, *((outputs, inputs) if turned else (inputs, outputs)), turned

    def plan(params: optax.Params) -> Any:
        def of_leaf(w: jax.Array, place: Place) -> tuple[Place]:
            if place.is_matrix:
                _, length, other, _ = shape_of(w, place.axes)
                small = min(length, other) <= (0 if rank is None else rank)
                place = place._replace(is_matrix=not small)
            return (place,)

        return map_leaves(of_leaf, params, (), hidden(params))[0]

    def slots_of(w: jax.Array, place: Place) -> Arrays:
        dtype = compute_dtype(w.dtype)
        if not place.is_matrix:
            whole = jnp.zeros_like(w, dtype=dtype)
            none = jnp.zeros((1,), dtype)
            return *[whole] * inner.moments, *[none] * (slots - inner.moments)
        layers, length, other, _ = shape_of(w, place.axes)
        vectors = min(length, other) if rank is None else rank
        moment = jnp.zeros((layers, vectors, other), dtype)
        shape = (layers, vectors) if kind.numbered else (layers, length, vectors)
        kept = jnp.zeros(shape, dtype)
        more = *refresh.initial(layers), *residual.initial(layers)
        return *[moment] * inner.moments, kept, *more

    own = len(refresh.initial(1))
    slots = inner.moments + 1 + own + len(residual.initial(1))
    dtypes: list[Any] = [WIDE] * slots
    if kind.numbered:
        dtypes[inner.moments] = jnp.int32

    def initial(params: Any) -> Sequence[Any]:
        _, *made = map_leaves(
            lambda w, *rest: (w, *slots_of(w, rest[-1])),
            params,
            [params] * slots,
            plan(params),
        )
        return made

    def projected(
        h: Any, place: Place, g: jax.Array, *slots: jax.Array
    ) -> tuple[Arrays, jax.Array]:
        *_, turned = shape_of(g, place.axes)

        def oriented(x: jax.Array) -> jax.Array:
            return jnp.swapaxes(x, -2, -1) if turned else x

        def step(
            numbers: dict[str, jax.Array], t: jax.Array, g: jax.Array, *slots: jax.Array
        ) -> Arrays:
            n = SimpleNamespace(**numbers)
            moments, kept = slots[: inner.moments], slots[inner.moments]
            when_due = slots[inner.moments + 1 : inner.moments + 1 + own]
            more = slots[inner.moments + 1 + own :]
            x = oriented(matrices_in(g, place.axes))
            layers, length, _ = x.shape
            due = jnp.broadcast_to(refresh.due(n, t, *when_due), (layers,))

            def refreshed(carry: tuple[Arrays, Any, Any]) -> tuple[Arrays, Any, Any]:
                moments, kept, _ = carry
                old = kind.vectors(kept, length)
                source = x
                if of_moment:
                    before = product(old, moments[0])
                    source = n.b1 * before + (1 - n.b1) * x
                found = kind.find(source, moments[0].shape[1])
                found = jnp.where(_like(due, found), found, kept)
                new = kind.vectors(found, length)
                turn = product(jnp.swapaxes(new, -2, -1), old)
                moved = transport(turn, *moments)
                moments = tuple(
                    jnp.where(_like(due & (t > 1), a), a, b)
                    for a, b in zip(moved, moments, strict=True)
                )
                return moments, found, turn[:, 0, 0]

            carry = moments, kept, jnp.zeros(layers, x.dtype)
            moments, kept, cosine = when(jnp.any(due), refreshed, carry)
            basis = kind.vectors(kept, length)
            coordinates = product(jnp.swapaxes(basis, -2, -1), x)
            direction, *averages = inner.step(n, t, coordinates, *moments)
            inside = product(basis, coordinates)
            rest, *last = residual.step(n, t, x, inside, coordinates, direction, *more)
            u = oriented(n.scale * product(basis, direction) + rest)
            sizes = (jnp.sum(jnp.square(a), (1, 2)) for a in (coordinates, x))
            return (
                of_matrices(u, place.axes, g.shape),
                *averages,
                kept,
                *refresh.after(n, t, due, cosine, *when_due),
                *last,
                jnp.sum(safe_divide(*sizes)),
            )

        *found, captured = unsharded(step, (g, *slots, h.t), h.numbers, h.t, g, *slots)
        return tuple(found), captured

    def rule(h: Any, g: jax.Array, _: jax.Array, *slots: jax.Array) -> Arrays:
        place: Place = h.axes
        if not place.is_matrix:
            moments, unused = slots[: inner.moments], slots[inner.moments :]
            return *inner.step(h, h.t, g, *moments), *unused
        found, captured = projected(h, place, g, *slots)
        layers = shape_of(g, place.axes)[0]
        note(CAPTURED, lambda: (captured, layers))
        return found

    return leafwise(
        name,
        rule,
        state,
        dtypes,
        {"[1, inf)": dict(every=every), **numbers},
        plan=plan,
        initial=initial,
        rules=rules,
        stacked=stacked,
    )


def _like(layers: jax.Array, x: jax.Array) -> jax.Array:
    return layers.reshape(-1, *[1] * (x.ndim - 1))
