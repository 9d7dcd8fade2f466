"""The chain around a trial's optimizer: clip, optimizers by group, multipliers.

`gnomon.experiments.config.chain` says what is in it and in which order; here alone it
is built, of any optimizers.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from gnomon.experiments.config.chain import group_spec, masked
from gnomon.experiments.config.resolve import build, resolve
from gnomon.optimizers import FusedTransformation, parameter_groups, scale_by_group
from gnomon.optimizers.mechanisms.layered import layered
from gnomon.parameters.rules import fitting

Make = Callable[[Mapping], optax.GradientTransformation]
GROUPS, MASK = "config.parameter_groups", "config.decay_mask"
# What stacked layers do not change: it is no sum over one leaf.
_OF_ALL = (optax.clip_by_global_norm, optax.clip)


def chained(
    optimizer: Mapping,
    make: Make,
    *,
    clip: Mapping,
    groups: Sequence[Mapping],
    decay_mask: Sequence[str],
) -> optax.GradientTransformation:
    """An optimizer within its chain.

    Args:
      optimizer: the component of `config.optimizer`, its numbers filled in.
      make: makes an optimizer of a component.
      clip: `config.clip`, its numbers filled in; may be empty, as the others may.
      groups: `config.parameter_groups`, their numbers filled in.
      decay_mask: `config.decay_mask`.

    Returns:
      The chain; what ``make`` gives where there is nothing to chain.
    """

    def made(spec: Mapping) -> optax.GradientTransformation:
        return make(masked(spec, _decaying(decay_mask))[0] if decay_mask else spec)

    specs = [group_spec(optimizer, group) for group in groups]
    whole = None if specs and None not in specs else made(optimizer)
    if any(spec is not None for spec in specs):
        # The same object where a group shares it: one optimizer moves them together.
        parts = [whole if spec is None else made(spec) for spec in specs]
        wheres = [group["where"] for group in groups]
        whole = parameter_groups([*zip(wheres, parts, strict=True)], name=GROUPS)
    assert whole is not None
    if decay_mask:
        whole = _checked(whole, decay_mask)
    # Groups that ask for nothing are looked at all the same: they may not cover.
    if groups and (any("multiplier" in group for group in groups) or not any(specs)):
        numbers = [(group["where"], group.get("multiplier", 1.0)) for group in groups]
        whole = optax.chain(whole, scale_by_group(numbers, name=GROUPS))
    return _clipped(clip, whole) if clip.get("name") else whole


def _decaying(rules: Sequence[str]) -> Callable[[Any], Any]:
    # Of what an optimizer sees, which may be a group that some rules are not about.
    return lambda params: fitting(params, rules, "")


def _checked(
    optimizer: optax.GradientTransformation, rules: Sequence[str]
) -> optax.GradientTransformation:
    """The optimizer, which refuses rules of decay that fit no parameter."""

    def init(params: Any) -> Any:
        fitting(params, rules, MASK)
        return optimizer.init(params)

    checked = optax.GradientTransformationExtraArgs(
        init, optax.with_extra_args_support(optimizer).update
    )
    if not isinstance(optimizer, FusedTransformation):
        return checked
    return FusedTransformation(checked, optimizer.apply)


def _clipped(
    clip: Mapping, optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    first = build(clip)
    ours = clip["name"].startswith("gnomon.")
    if not ours and resolve(clip["name"]) not in _OF_ALL:
        first = layered(first)
    first = optax.with_extra_args_support(first)
    unfused = optax.chain(first, optimizer)
    if not isinstance(optimizer, FusedTransformation):
        return unfused

    def apply(grads: Any, state: Any, params: Any, **extra: Any) -> tuple[Any, Any]:
        grads, bound = first.update(grads, state[0], params, **extra)
        params, moved = optimizer.apply(grads, state[1], params, **extra)
        return params, (bound, moved)

    return FusedTransformation(unfused, apply)
