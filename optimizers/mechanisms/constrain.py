"""Keeping weights on a set: any complete optimizer, then back to the set."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from gnomon.optimizers.mechanisms.composition import norm_control
from gnomon.optimizers.mechanisms.diagnostics import mean_of, means, note, tells
from gnomon.optimizers.mechanisms.fused import (
    FusedTransformation,
    add_updates,
    kept,
    leaf_keys,
    leaf_shardings,
)
from gnomon.optimizers.mechanisms.inner import complete
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import require_choice, require_params, require_within
from gnomon.parameters.stacks import declare
from gnomon.parameters.trees import compute_dtype, map_leaves

__all__ = ["ConstrainState", "Constraint", "constrain", "leaf_constraint"]

CONSTRAINED = means(
    "constrained", "share of the numbers that a constraint selects which it moved"
)
Tangent = Literal["none", "gradients", "updates", "both"]


class Constraint(NamedTuple):
    """A set of weights, as pure functions of trees.

    ``gnomon.optimizers.constraints`` makes them; :func:`leaf_constraint` builds one
    from rules for a single leaf.
    """

    # Its name, for messages.
    name: str
    # Parameters to a tree of bools: the leaves it moves.
    selects: Callable[[Any], Any]
    # (parameters in float32 or wider, reference) to parameters on the set. Called with
    # the whole tree; only the selected leaves of the result are used.
    project: Callable[[Any, Any], Any]
    # Parameters to what ``project`` is to remember of them, norms for example.
    capture: Callable[[Any], Any] | None = None
    # (vectors, parameters, reference) to the vectors' part tangent to the set at the
    # parameters; without a reference that of the parameters themselves.
    tangent: Callable[..., Any] | None = None
    # Whether weight decay on the selected leaves does anything.
    allows_decay: bool = True
    # Whether ``project`` moves all entries of the selected leaves; otherwise entries
    # that it leaves alone keep their update to the bit, at the price of comparing.
    moves_all: bool = False
    # (parameters, updates, reference, whether the updates lose their radial part first,
    # keys, shardings) to the parameters moved and put back on the set, by a kernel.
    step: Callable[..., Any] | None = None
    # Regex of further leaves that stack layers along axis 0, for the inner optimizer.
    stacked: str | None = None


def leaf_constraint(
    name: str,
    plan: Callable[[Any], Any],
    *,
    project: Callable[[jax.Array, Any, Any], jax.Array],
    capture: Callable[[jax.Array, Any], jax.Array] | None = None,
    tangent: Callable[[jax.Array, jax.Array, Any, Any], jax.Array] | None = None,
    allows_decay: bool = True,
    moves_all: bool = False,
    step: Callable[..., jax.Array] | None = None,
    stacked: str | None = None,
) -> Constraint:
    """A constraint on each leaf by itself.

    Args:
      name: its name, for messages.
      plan: maps parameters to a tree that holds None at the leaves left free and, at
        the others, what the rules need to know of the leaf, for example its
        :class:`gnomon.parameters.units.Axes`.
      project: ``project(w, reference, info)`` is the weight on the set; ``reference``
        is None without ``capture``.
      capture: ``capture(w, info)`` is what to remember, default nothing.
      tangent: ``tangent(u, w, reference, info)`` is the tangent part of a vector at
        ``w``; without it the constraint cannot be used with ``constrain(tangent=...)``.
      allows_decay: whether weight decay on the constrained leaves does anything.
      moves_all: whether ``project`` moves every entry of a weight that is off the set.
      step: ``step(w, u, reference, info, tangent=, key=, sharding=)`` is the weight
        after the update and on the set, in one kernel; default none.
      stacked: regex of further leaves that stack layers along axis 0, which the inner
        optimizer is told of; ``plan`` has to know of it too.

    Returns:
      The constraint.

    Example:
      Weights between 0 and 1:

      >>> import jax.numpy as jnp, optax
      >>> box = leaf_constraint(
      ...     "box", lambda params: jax.tree.map(lambda w: (), params),
      ...     project=lambda w, reference, info: jnp.clip(w, 0.0, 1.0))
      >>> optimizer = constrain(optax.sgd(1.0), box)
      >>> w = jnp.array([0.5, 0.5, 0.5])
      >>> g = jnp.array([1.0, -1.0, 0.25])
      >>> updates, state = optimizer.update(g, optimizer.init(w), w)
      >>> print(w + updates)
      [0.   1.   0.25]
    """

    def selects(params: optax.Params) -> Any:
        (chosen,) = map_leaves(
            lambda w, info: (info is not None,), params, (), plan(params)
        )
        return chosen

    def project_all(params: optax.Params, reference: Any) -> optax.Params:
        def rule(w: jax.Array, info: Any, kept: Any = None) -> tuple[jax.Array]:
            return (w if info is None else project(w, kept, info),)

        kept = () if capture is None else (reference,)
        return map_leaves(rule, params, (), plan(params), *kept)[0]

    def capture_all(params: optax.Params) -> Any:
        assert capture is not None

        def rule(w: jax.Array, info: Any) -> tuple[jax.Array | None]:
            return (None if info is None else capture(w, info),)

        return map_leaves(rule, params, (), plan(params))[0]

    def tangent_all(vectors: Any, params: optax.Params, reference: Any = None) -> Any:
        assert tangent is not None
        if reference is None and capture is not None:
            reference = capture_all(params)

        def rule(
            u: jax.Array, w: jax.Array, info: Any, kept: Any = None
        ) -> tuple[jax.Array]:
            return (u if info is None else tangent(u, w, kept, info),)

        kept = () if capture is None else (reference,)
        return map_leaves(rule, vectors, (), params, plan(params), *kept)[0]

    def step_all(
        params: optax.Params,
        updates: optax.Updates,
        reference: Any,
        to_tangent: bool,
        keys: Any,
        shardings: Any,
    ) -> optax.Params:
        assert step is not None

        def rule(
            u: jax.Array,
            w: jax.Array,
            info: Any,
            key: jax.Array | None,
            sharding: NamedSharding | None,
            kept: Any = None,
        ) -> tuple[jax.Array]:
            if info is None:
                return (add_updates(w, u),)
            how = dict(tangent=to_tangent, key=key, sharding=sharding)
            return (step(w, u, kept, info, **how),)

        kept = () if capture is None else (reference,)
        trees = (params, plan(params), keys, shardings, *kept)
        return map_leaves(rule, updates, (), *trees)[0]

    return Constraint(
        name,
        selects,
        project_all,
        None if capture is None else capture_all,
        None if tangent is None else tangent_all,
        allows_decay,
        moves_all,
        None if step is None else step_all,
        stacked,
    )


@tells(
    "reference",
    "mean of what a constraint remembers of the weights; 0 until it begins",
    lambda state: mean_of(state.reference),
)
class ConstrainState(NamedTuple):
    """State of :func:`constrain`."""

    # Updates made, shape=(), dtype=int32; hides tuple.count, as optax's states do.
    count: jax.Array  # type: ignore[assignment]
    inner: optax.OptState  # the state of the wrapped optimizer
    # What the constraint remembers of the weights at the start; zeros until then.
    reference: Any


def constrain(
    inner: optax.GradientTransformation,
    constraint: Constraint,
    *,
    start: jax.typing.ArrayLike = 0,
    every: jax.typing.ArrayLike = 1,
    tangent: Tangent = "none",
) -> optax.GradientTransformationExtraArgs:
    r"""Puts the weights back on a set after each step of a complete optimizer.

    With :math:`u` the update of ``inner``, learning rate included, and :math:`P` the
    projection to the set, emits

    .. math::
      P(w + u) - w,

    so that ``optax.apply_updates`` gives a point of the set. The leaves that the
    constraint does not select, and entries that :math:`P` leaves alone (a norm within
    its bound, say), keep :math:`u` itself. Update number :math:`t = 1, 2, \dots`
    projects if :math:`t >` ``start`` and :math:`t -` ``start`` is a multiple of
    ``every``; other updates are those of ``inner``. References (norms, for example) are
    captured from the weights that update ``start + 1`` begins with, and stay in the
    state.

    The sum :math:`w + u`, the projection and the difference are computed in float32 or
    wider and rounded once, to the dtype of :math:`u`. In bfloat16 a norm is then held
    to the rounding of its entries, :math:`2^{-9}` each at random, and does not drift,
    because every projection starts anew from the reference.

    Args:
      inner: a complete optimizer, such as ``optax.adam(1e-3)``.
      constraint: the set, see ``gnomon.optimizers.constraints``.
      start: updates made freely at first, a whole number, default 0.
      every: period of the projection in updates, a whole number, default 1.
      tangent: which vectors lose the part that leaves the set, from update
        ``start + 1`` on: ``"gradients"`` on their way into ``inner``, its
        ``"updates"``, ``"both"``, or ``"none"``, the default.

    Returns:
      The optimizer. It needs ``params`` in ``update``. With a constraint that has a
      kernel it has the fused entry point of :func:`gnomon.optimizers.apply_fused`,
      which reads ``shardings`` and ``rounding_key`` as
      :func:`gnomon.optimizers.adamp`'s does.

    Raises:
      ValueError: if ``params`` is missing, ``start`` or ``every`` is not one number or
        out of range, ``tangent`` is unknown or the constraint has no tangents,
        ``inner`` climbs, or an enclosing transform already controls the norm of a
        selected leaf.
      TypeError: if ``inner`` is no transform.

    Example:
      >>> import jax.numpy as jnp, optax
      >>> from gnomon.optimizers.mechanisms.sets import fixed_norm
      >>> w = {"kernel": jnp.array([[3.0], [4.0]])}
      >>> g = {"kernel": jnp.array([[1.0], [-2.0]])}
      >>> def norm_after_a_step(optimizer):
      ...     updates, _ = optimizer.update(g, optimizer.init(w), w)
      ...     norm = jnp.linalg.norm(optax.apply_updates(w, updates)["kernel"])
      ...     return round(float(norm), 4)
      >>> norm_after_a_step(constrain(optax.sgd(0.1), fixed_norm()))
      5.0

      A constraint in front of the learning rate would see no weights that will ever
      be: it would project ``w + g``, and the step back to the set would be scaled and
      turned round. So it is refused:

      >>> constrain(optax.identity(), fixed_norm())
      Traceback (most recent call last):
        ...
      ValueError: inner climbs: it has to be a complete optimizer, such as
      optax.adam(1e-3) in place of optax.scale_by_adam(); a direction becomes one by
      optax.chain(direction, gnomon.optimizers.descend(1e-3)).
    """
    require_within("[0, 2147483647]", start=start, whole=True)
    require_within("[1, 2147483647]", every=every, whole=True)
    require_choice("tangent", tangent, Tangent)
    if constraint.tangent is None and tangent != "none":
        raise ValueError(
            f"the constraint {constraint.name!r} has no tangents: use tangent='none'."
        )
    wrapped = layered(complete(inner), constraint.stacked)
    # Known to be on from the first update: nothing to choose, so XLA can fuse the
    # projection into the step. The state and the numbers are those of the general case.
    begins_at_once = isinstance(start, int) and start <= 0
    always = begins_at_once and isinstance(every, int) and every == 1

    def init_fn(params: optax.Params) -> ConstrainState:
        control = norm_control(
            constraint.name,
            constraint.selects(params),
            allows_decay=constraint.allows_decay,
        )
        with declare(constraint.stacked), control:
            inner_state = wrapped.init(params)
        count = jnp.zeros([], jnp.int32)
        return ConstrainState(count, inner_state, blank_reference(constraint, params))

    def to_tangent(vectors: Any, params: optax.Params, reference: Any) -> Any:
        assert constraint.tangent is not None
        return constraint.tangent(vectors, params, reference)

    def inner_step(
        updates: optax.Updates,
        state: ConstrainState,
        params: optax.Params | None,
        extra_args: Mapping[str, Any],
    ) -> tuple[optax.Updates, ConstrainState, bool | jax.Array, bool | jax.Array]:
        """The inner optimizer's update, and whether the set's rules hold yet."""
        require_params(params, constraint.name)
        if not jax.tree.leaves(params):  # a part of a partition that has none
            updates, inner_state = wrapped.update(
                updates, state.inner, params, **extra_args
            )
            count = optax.safe_increment(state.count)
            return updates, state._replace(count=count, inner=inner_state), False, False
        first = jnp.maximum(jnp.asarray(start, jnp.int32), 0)
        period = jnp.maximum(jnp.asarray(every, jnp.int32), 1)
        number = state.count - first + 1  # of this update, counted from the start
        begun = True if begins_at_once else number >= 1
        fires = True if always else (number >= 1) & (number % period == 0)

        reference = state.reference
        capture = constraint.capture
        if capture is not None:
            reference = when(number == 1, lambda _: capture(params), reference)
        if tangent in ("gradients", "both"):
            updates = when(begun, lambda g: to_tangent(g, params, reference), updates)
        updates, inner_state = wrapped.update(
            updates, state.inner, params, **extra_args
        )
        count = optax.safe_increment(state.count)
        return updates, ConstrainState(count, inner_state, reference), begun, fires

    def projected(
        updates: optax.Updates,
        params: optax.Params,
        reference: Any,
        begun: bool | jax.Array,
    ) -> optax.Updates:
        if tangent not in ("updates", "both"):
            return updates
        return when(begun, lambda u: to_tangent(u, params, reference), updates)

    def update_fn(
        updates: optax.Updates,
        state: ConstrainState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, ConstrainState]:
        updates, state, begun, fires = inner_step(updates, state, params, extra_args)
        free = projected(updates, params, state.reference, begun)
        updates = when(
            fires,
            lambda u: _constrained(u, params, constraint, state.reference),
            free,
        )
        note(CONSTRAINED, lambda: _moved(free, updates, constraint.selects(params)))
        return updates, state

    unfused = transformation(constraint.name, init_fn, update_fn)
    step = constraint.step
    if step is None:
        return unfused

    def apply_fn(
        grads: optax.Updates,
        state: ConstrainState,
        params: optax.Params,
        *,
        shardings: Any = None,
        rounding_key: jax.Array | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Params, ConstrainState]:
        updates, state, begun, fires = inner_step(grads, state, params, extra_args)
        how = leaf_keys(rounding_key, params), leaf_shardings(shardings, params)

        def onto(updates: optax.Updates) -> optax.Params:
            radial = tangent in ("updates", "both")
            moved = step(params, updates, state.reference, radial, *how)
            return kept(moved, params)

        def freely(updates: optax.Updates) -> optax.Params:
            return add_updates(
                params, projected(updates, params, state.reference, begun)
            )

        if isinstance(fires, jax.core.Tracer):
            return jax.lax.cond(fires, onto, freely, updates), state
        return (onto if fires else freely)(updates), state

    return FusedTransformation(unfused, apply_fn)


def when(condition: bool | jax.Array, fn: Callable[[Any], Any], tree: Any) -> Any:
    """``fn(tree)`` where the condition holds and ``tree`` elsewhere."""
    if isinstance(condition, jax.core.Tracer):
        return jax.lax.cond(condition, fn, lambda unchanged: unchanged, tree)
    # Outside jit, lax.cond would compile its branches anew at every call.
    return fn(tree) if condition else tree


def blank_reference(constraint: Constraint, params: optax.Params) -> Any:
    """Zeros in the shape of the references, which are captured later.

    A tree without leaves, with which ``optax.tree.map_params`` asks for the layout of
    the state, is answered by a single leaf: references are not shaped like parameters,
    and must not be given their shardings.
    """
    if constraint.capture is None or not jax.tree.leaves(params):
        return () if constraint.capture is None else jnp.zeros([])
    shapes = jax.eval_shape(constraint.capture, params)
    return jax.tree.map(jnp.zeros_like, shapes)


def _moved(free: Any, updates: Any, selected: Any) -> tuple[jax.Array, int]:
    """How many numbers of the selected leaves the set moved, and of how many."""
    counts = [(jnp.zeros([]), 0)]

    def count(u: jax.Array, v: jax.Array, chosen: bool) -> tuple[jax.Array]:
        if chosen:
            counts.append((jnp.sum(u != v), u.size))
        return (u,)

    map_leaves(count, free, (), updates, selected)
    parts, sizes = zip(*counts, strict=True)
    return sum(part.astype(jnp.float32) for part in parts), sum(sizes)


def _constrained(
    updates: optax.Updates, params: optax.Params, constraint: Constraint, reference: Any
) -> optax.Updates:
    """The updates that end on the set."""

    def moved(w: jax.Array, u: jax.Array | None) -> tuple[jax.Array]:
        wide = w.astype(compute_dtype(w.dtype))
        return (wide if u is None else wide + u.astype(wide.dtype),)

    (points,) = map_leaves(moved, params, (), updates)
    targets = constraint.project(points, reference)

    def emit(
        u: jax.Array,
        point: jax.Array,
        target: jax.Array,
        w: jax.Array,
        selected: bool,
    ) -> tuple[jax.Array]:
        if not selected:
            return (u,)
        back = (target - w.astype(point.dtype)).astype(u.dtype)
        return (back if constraint.moves_all else jnp.where(target == point, u, back),)

    return map_leaves(
        emit, updates, (), points, targets, params, constraint.selects(params)
    )[0]
