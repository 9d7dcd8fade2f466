"""A rule for one leaf becomes a transform."""

from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, Protocol, Self

import jax
import jax.numpy as jnp
import optax

from gnomon.optimizers.mechanisms.composition import refuse_decay
from gnomon.optimizers.mechanisms.diagnostics import say
from gnomon.optimizers.mechanisms.transform import transformation
from gnomon.parameters.checks import at_step, require_params, require_within
from gnomon.parameters.trees import broadcast_mask, compute_dtype, map_leaves
from gnomon.parameters.units import Axes, Rules, resolve_axes

__all__ = ["Leafwise", "leafwise"]

# A slot's dtype: float32 or wider. At b2 = 0.999 an average in bfloat16 would never
# decay: the relative change of a step, 0.001, is below its rounding.
WIDE = "wide"


class Hyperparameters(Protocol):
    """What a rule is told first, as ``h``: its numbers, its step and its leaf.

    A hyperparameter is an attribute by its name, ``h.b1``, in the dtype of the leaf.
    """

    numbers: dict[str, Any]  # all hyperparameters, as keywords of a kernel
    t: jax.Array  # the number of the step, from 1
    axes: Axes  # of the leaf; where there is a plan, what it says
    decays: bool  # whether the leaf decays

    def __getattr__(self, name: str) -> jax.Array: ...


# optax ships no types.
class Leafwise(optax.GradientTransformationExtraArgs):  # type: ignore[misc]
    """A transform that :func:`leafwise` made.

    Attributes:
      on_leaves: ``on_leaves(fn, updates, state, params, *trees)`` runs another rule,
        a kernel say, over the same leaves, slots and numbers: ``fn(h, g, w, *slots,
        *leaves)`` sees arrays in the dtypes that they are stored in, and returns what
        becomes of the leaf and of the slots.
    """

    on_leaves: Callable[..., tuple[Any, Any]]

    def __new__(
        cls,
        transform: optax.GradientTransformationExtraArgs,
        on_leaves: Callable[..., tuple[Any, Any]],
    ) -> Self:
        """Joins the map over leaves to a transform."""
        self: Self = super().__new__(cls, *transform)
        self.on_leaves = on_leaves
        return self


def leafwise(
    name: str,
    rule: Callable[..., Any],
    state: Callable[..., optax.OptState],
    slots: Sequence[jax.typing.DTypeLike | None],
    hyperparameters: Mapping[str, Mapping[str, Any]],
    *,
    weight_decay_mask: optax.MaskOrFn | None = None,
    rules: Rules | None = None,
    stacked: str | None = None,
    plan: Callable[[Any], Any] | None = None,
    initial: Callable[[Any], Sequence[Any]] | None = None,
    further: Callable[..., Sequence[Any]] | None = None,
    needs_params: bool = True,
    complex_leaves: bool = False,
    says: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = None,
) -> Leafwise:
    r"""Makes a transform of a rule for one leaf.

    The rule is the method: ``rule(h, g, w, *slots) -> (direction, *slots)``, or the
    direction alone where there are no slots, for arrays of one dtype, float32 or that
    of the leaf where it is wider. ``h`` has the hyperparameters in this dtype by their
    names, schedules at their values of this step, and all of them in ``h.numbers``;
    ``h.t``, the number of the step, from 1; ``h.axes``, the leaf's
    :class:`gnomon.parameters.units.Axes`; and ``h.decays``, whether the leaf decays:
    where it does not, ``h.weight_decay`` is zero.

    All else is done here: casts, slots, leaves without a gradient, masks, axes, the
    count, and what is refused by name. The direction has the dtype of the parameter. A
    rule that reduces over a whole leaf takes ``h.axes.layer(g.ndim).reduce``, and so
    keeps layers that share a leaf apart.

    Args:
      name: the name of the transform, for messages.
      rule: the rule.
      state: makes the state of the count and one tree a slot: a NamedTuple.
      slots: the dtype of each slot: None is that of the parameter, ``WIDE``, which is
        ``"wide"``, float32 or wider.
      hyperparameters: scalars, traced or not, or schedules, by name, under the interval
        they have to lie in, as in :func:`gnomon.parameters.checks.require_within`. One
        that is called ``weight_decay`` is masked, and is refused inside of a transform
        that fixes norms.
      weight_decay_mask: tree of bools (or a prefix of one, or a function of the
        parameters) saying which leaves decay; default all.
      rules: ordered ``(regex, axes)`` pairs, see
        :func:`gnomon.parameters.units.resolve_axes`.
      stacked: regex of the leaves that stack layers along axis 0.
      plan: maps parameters to a tree of what ``h.axes`` is to be, in place of what
        ``rules`` and ``stacked`` say; a leaf where it is None passes as it is.
      initial: maps parameters to one tree a slot, what it holds at first; default
        zeros.
      further: ``further(updates, count, params, extra_args)`` gives trees whose leaves
        the rule gets after the slots; ``count`` is the number of the step.
      needs_params: False for a rule that does not look at ``w``, which then is None;
        the dtypes are those of the updates.
      complex_leaves: whether the rule is right for complex numbers.
      says: maps the hyperparameters of a step to the terms of
        :class:`gnomon.optimizers.Balance` that they set, such as
        ``lambda now: dict(momentum=now["b1"])``. Default None: it says nothing, and no
        angle is predicted for an optimizer that it is part of.

    Returns:
      The transform, ascent-signed as its rule is. It needs ``params`` in ``update``
      unless ``needs_params`` is False.

    Raises:
      ValueError: if a hyperparameter is not one number or out of range, ``params`` is
        missing, or a rule matches no leaf.

    Example:
      A new optimizer: the sign of an average of gradients, and decay of the weights.

      >>> from typing import NamedTuple
      >>> class SignState(NamedTuple):
      ...     count: jax.Array
      ...     mu: optax.Updates
      >>> def scale_by_average_sign(b1=0.9, weight_decay=0.0):
      ...     def rule(h, g, w, mu):
      ...         mu = h.b1 * mu + (1 - h.b1) * g
      ...         return jnp.sign(mu) + h.weight_decay * w, mu
      ...     numbers = {"[0, 1)": dict(b1=b1),
      ...                "[0, inf)": dict(weight_decay=weight_decay)}
      ...     return leafwise("average_sign", rule, SignState, [None], numbers)
      >>> average_sign = scale_by_average_sign(weight_decay=0.1)
      >>> w = jnp.array([1.0, -2.0], jnp.bfloat16)
      >>> direction, state = average_sign.update(w, average_sign.init(w), w)
      >>> print(direction, state.mu.dtype)
      [1.10156 -1.20312] bfloat16
      >>> scale_by_average_sign(b1=1.5)
      Traceback (most recent call last):
        ...
      ValueError: b1=1.5 is outside of its range [0, 1).
    """
    for interval, numbers in hyperparameters.items():
        require_within(interval, **numbers)
    given = {
        label: value
        for numbers in hyperparameters.values()
        for label, value in numbers.items()
    }

    def axes_of(params: optax.Params) -> Any:
        return resolve_axes(params, rules, stacked) if plan is None else plan(params)

    def init_fn(params: optax.Params) -> optax.OptState:
        refuse_decay(name, given.get("weight_decay", 0.0), weight_decay_mask, params)
        axes_of(params)  # refuses rules that match nothing
        trees = [params] * len(slots) if initial is None else initial(params)

        def slot(tree: Any, dtype: jax.typing.DTypeLike | None) -> Any:
            def leaf(w: jax.Array, first: jax.Array) -> jax.Array:
                own = w.dtype if dtype is None else dtype
                if isinstance(own, str) and own == WIDE:
                    own = compute_dtype(w.dtype)
                zeros = jnp.zeros_like(w, dtype=own)
                return zeros if initial is None else first.astype(own)

            return jax.tree.map(leaf, params, tree)

        kept = (slot(tree, dtype) for tree, dtype in zip(trees, slots, strict=True))
        return state(jnp.zeros([], jnp.int32), *kept)

    def on_leaves(
        fn: Callable[..., tuple[Any, ...]],
        updates: optax.Updates,
        old: optax.OptState,
        params: optax.Params | None,
        *trees: Any,
    ) -> tuple[Any, optax.OptState]:
        if needs_params:
            require_params(params, name)
        like = params if needs_params else updates
        count = optax.safe_increment(old[0])
        now = {label: at_step(label, value, old[0]) for label, value in given.items()}
        undecayed = now | {"weight_decay": 0.0} if "weight_decay" in now else now

        def on_leaf(update: jax.Array, *rest: Any) -> tuple[Any, ...]:
            kept, more = rest[: len(slots)], rest[len(slots) + 3 :]
            leaf, axes, decays = rest[len(slots) : len(slots) + 3]
            dtype = compute_dtype(leaf.dtype)
            chosen = now if decays else undecayed
            numbers = {label: jnp.asarray(x, dtype) for label, x in chosen.items()}
            h = SimpleNamespace(
                **numbers,
                numbers=numbers,
                t=count.astype(dtype),
                axes=axes,
                decays=decays,
            )
            return fn(h, update, leaf if needs_params else None, *kept, *more)

        masks = broadcast_mask(weight_decay_mask, like, stacked)
        first, *new = map_leaves(
            on_leaf, updates, old[1:], like, axes_of(like), masks, *trees
        )
        changed = state(count, *new)
        if says is not None:
            say(type(changed), lambda: _numbers(says(now)))
        return first, changed

    def in_one_dtype(
        h: Hyperparameters, update: jax.Array, w: jax.Array | None, *rest: jax.Array
    ) -> tuple[jax.Array, ...]:
        kept = rest[: len(slots)]
        if h.axes is None:
            return update, *kept
        arrays = (x.astype(h.t.dtype) for x in rest)
        wide = None if w is None else w.astype(h.t.dtype)
        found = rule(h, update.astype(h.t.dtype), wide, *arrays)
        direction, *new = found if slots else (found,)
        return (
            direction.astype(update.dtype if w is None else w.dtype),
            *(x.astype(y.dtype) for x, y in zip(new, kept, strict=True)),
        )

    def update_fn(
        updates: optax.Updates,
        old: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        trees: Sequence[Any] = ()
        if further is not None:
            count = optax.safe_increment(old[0])
            trees = further(updates, count, params, extra_args)
        return on_leaves(in_one_dtype, updates, old, params, *trees)

    transform = transformation(name, init_fn, update_fn, complex_leaves=complex_leaves)
    return Leafwise(transform, on_leaves)


def _numbers(terms: Mapping[str, Any]) -> dict[str, jax.Array]:
    return {name: jnp.asarray(x, jnp.float32) for name, x in terms.items()}
