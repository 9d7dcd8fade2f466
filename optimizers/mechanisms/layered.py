"""What a wrapper does with an inner optimizer where layers are stacked.

Optimizers of this package keep stacked layers apart wherever they are told of them: by
the leaves' names, by their own ``stacked``, or by that of a wrapper around them, which
is declared while they run. Others are looked at: one whose step on a stacked leaf is
plainly the step of a single layer, number by number, runs as it is, and any other runs
in :func:`gnomon.optimizers.per_layer`. What is looked at is the step's program, so that
it does not matter whether hyperparameters are numbers or tracers.
"""

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.extend.core import Literal

from gnomon.optimizers.mechanisms.fused import FusedTransformation, apply_fused
from gnomon.optimizers.mechanisms.per_layer import per_layer
from gnomon.parameters.stacks import Stacks, declare
from gnomon.parameters.trees import BY_LAYER

# What acts on each number by itself.
_ELEMENTWISE = re.compile(
    r"""a?(cos|sin|tan)h? | abs | add | and | atan2 | cbrt | ceil | clamp
    | convert_element_type | copy(_p)? | div | eq | erf(_inv|c)? | exp2? | expm1 | floor
    | g[et] | integer_pow | is_finite | l[et] | log | log1p | logistic | max | min | mul
    | ne | neg | nextafter | not | optimization_barrier | or | pow | rem | round
    | r?sqrt | select_n | sign | square | stop_gradient | sub | xor""",
    re.VERBOSE,
)


def layered(
    inner: optax.GradientTransformation,
    stacked: str | None = None,
    prefixes: Sequence[str] = (),
) -> optax.GradientTransformationExtraArgs:
    """An inner optimizer that treats stacked layers as a list of layers.

    Args:
      inner: any optax transform.
      stacked: the wrapper's regex of stacked leaves.
      prefixes: what the trees that ``inner`` sees put before the parameters' paths.

    Returns:
      The transform, with ``apply`` where ``inner`` has one. Where no leaf is stacked it
      does what ``inner`` does.
    """
    wrapped = optax.with_extra_args_support(inner)
    unrolled = per_layer(inner)
    known: dict[Any, bool] = {}

    def chosen(tree: Any) -> optax.GradientTransformation:
        layers = Stacks(tree)
        if not layers.any:
            return wrapped if not isinstance(inner, FusedTransformation) else inner
        shapes = jax.tree.map(lambda x: (x.shape, x.dtype), tree)
        key = jax.tree.structure(tree), tuple(jax.tree.leaves(shapes))
        if key not in known:
            known[key] = keeps_layers_apart(wrapped, tree)
        return inner if known[key] else unrolled

    def run() -> contextlib.ExitStack:
        """What runs inside keeps the layers apart, also where wrappers are nested."""
        context = contextlib.ExitStack()
        context.enter_context(declare(stacked, prefixes))
        context.enter_context(jax.named_scope(BY_LAYER))
        return context

    def init_fn(params: optax.Params) -> optax.OptState:
        with run():
            return chosen(params).init(params)

    def update_fn(
        updates: optax.Updates,
        state: optax.OptState,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[optax.Updates, optax.OptState]:
        with run():
            one = chosen(updates if params is None else params)
            one = optax.with_extra_args_support(one)
            moved: tuple[Any, Any] = one.update(updates, state, params, **extra_args)
            return moved

    unfused = optax.GradientTransformationExtraArgs(init_fn, update_fn)
    if not isinstance(inner, FusedTransformation):
        return unfused

    def apply_fn(
        grads: optax.Updates,
        state: optax.OptState,
        params: optax.Params,
        **extra_args: Any,
    ) -> tuple[optax.Params, optax.OptState]:
        with run():
            return apply_fused(chosen(params), grads, state, params, **extra_args)

    return FusedTransformation(unfused, apply_fn)


def keeps_layers_apart(
    optimizer: optax.GradientTransformationExtraArgs, params: Any
) -> bool:
    """Whether a step on stacked layers is plainly the step of each layer.

    It is where the programs of both are the same sequence of operations on each number,
    apart from what leaf rules of this package compute. False says that it was not seen,
    for instance of an optimizer whose step cannot be traced without the loss.

    Args:
      optimizer: any transform.
      params: parameters with stacked leaves.
    """
    layers = Stacks(params)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    try:
        whole = _program(optimizer, shapes)
        # In the same structure: masks and labels may be trees of it.
        first = layers.call(lambda layer: _program(optimizer, layer), shapes)
    except Exception:  # whatever an optimizer of another's raises
        return False
    return None not in whole and whole == first


def _program(optimizer: Any, params: Any) -> list[Any]:
    """The operations of a step; None for one that is not elementwise."""
    zeros = {"value": jnp.zeros([]), "loss": jnp.zeros([])}

    def step(params: optax.Params) -> tuple[optax.Updates, optax.OptState]:
        state = optimizer.init(params)
        found: tuple[Any, Any] = optimizer.update(
            params, state, params, grad=params, **zeros
        )
        return found

    traced = jax.make_jaxpr(step)(params)
    constants = dict(zip(traced.jaxpr.constvars, traced.consts, strict=True))
    return list(_operations(traced.jaxpr, constants))


def _operations(jaxpr: Any, constants: dict[Any, Any]) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        if BY_LAYER in str(equation.source_info.name_stack):
            continue
        inside = [
            part
            for value in equation.params.values()
            for part in (value if isinstance(value, tuple | list) else (value,))
            if hasattr(part, "jaxpr") or hasattr(part, "eqns")
        ]
        for part in inside:
            closed = getattr(part, "jaxpr", part)
            constants_inside = getattr(part, "consts", ())
            values = dict(zip(closed.constvars, constants_inside, strict=False))
            yield from _operations(closed, values)
        if inside:
            yield _values(equation, constants)
        else:
            yield _operation(equation, constants)


def _values(equation: Any, constants: dict[Any, Any]) -> tuple[Any, ...]:
    """The numbers in an operation; tracers by what they are, not by their values."""
    values = []
    for v in equation.invars:
        value = v.val if isinstance(v, Literal) else constants.get(v)
        if isinstance(value, jax.core.Tracer):
            values.append(id(value))
        elif value is not None and np.ndim(value) == 0:
            values.append(np.asarray(value).item())
    return tuple(values)


def _operation(equation: Any, constants: dict[Any, Any]) -> Any:
    name = equation.primitive.name
    shapes = {v.aval.shape for v in (*equation.invars, *equation.outvars)} - {()}
    spread = name in ("broadcast_in_dim", "full") and all(
        v.aval.shape == () for v in equation.invars
    )
    if shapes and not spread and (not _ELEMENTWISE.fullmatch(name) or len(shapes) > 1):
        return None
    what = [str(equation.params.get(key)) for key in ("y", "new_dtype")]
    return name, *what, _values(equation, constants)
