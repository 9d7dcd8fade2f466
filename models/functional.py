"""A Flax NNX model as two pure functions over plain dictionaries of arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import nnx
from jax import Array

from gnomon.parameters.stacks import unstack

Params = dict[str, Any]
Stats = dict[str, Any]


class Functional(NamedTuple):
    """A model as pure functions, usable under jit, vmap and grad.

    Attributes:
      init: `init(key) -> (params, stats)`. Both are nested dictionaries with string
        keys and array leaves; `stats` holds the running statistics of normalization
        layers and is `{}` for a model without any. The key may be traced, so
        `jax.vmap(init)` builds a batch of models.
      apply: `apply(params, stats, inputs, *, train, key=None) -> (outputs, stats)`.
        Statistics change only where `train` is true. `key` feeds the model's own
        randomness (dropout); a model without any ignores it.
      activations: `activations(params, stats, inputs, *, train, key=None)`, what the
        modules inside of the model put out on the way, by their path (`hidden/0`): the
        last output of each one that returns an array. Modules under `jax.lax.scan` are
        not seen, nor are those that run twice; a model that takes `scan=True` or
        `remat` is therefore run here without, on its layers taken apart, and its paths
        are those of that model.
    """

    init: Callable[[Array], tuple[Params, Stats]]
    apply: Callable[..., tuple[Any, Stats]]
    activations: Callable[..., dict[str, Array]]


def functional(model: Callable[..., nnx.Module], **kwargs: Any) -> Functional:
    """Turns a module class into pure functions over plain trees.

    The module's structure is traced once, abstractly, so building costs no memory
    and no FLOPs. A compiled step then sees only arrays in dictionaries, and the
    module object exists during tracing alone: no per-step cost of splitting,
    merging or `nnx.jit`.

    Args:
      model: a module class (or any callable that returns a module) taking `rngs`
        and whose instances are called as `module(inputs, train=...)`. Trainable
        arrays are `nnx.Param`, running statistics `nnx.BatchStat`.
      **kwargs: everything else that the class takes.

    Returns:
      The model's `Functional`.

    Raises:
      TypeError: if the model holds variables that are neither parameters, batch
        statistics nor random state: there is no place for them in a pure apply.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> from gnomon.models import MLP, functional
      >>> net = functional(MLP, inputs=4, widths=(8,), classes=3)
      >>> params, stats = net.init(jax.random.key(0))
      >>> jax.tree.map(jnp.shape, params)
      {'head': {'bias': (3,), 'kernel': (8, 3)},
       'hidden': {'0': {'bias': (8,), 'kernel': (4, 8)}}}
      >>> outputs, _ = net.apply(params, stats, jnp.ones((2, 4)), train=False)
      >>> outputs.shape
      (2, 3)
      >>> seen = net.activations(params, stats, jnp.ones((2, 4)), train=False)
      >>> jax.tree.map(jnp.shape, seen)
      {'head': (2, 3), 'hidden/0': (2, 8)}
    """
    unscanned = None
    seen_through = {
        key: plain
        for key, plain in (("scan", False), ("remat", "none"))
        if kwargs.get(key, plain) != plain
    }
    if seen_through:
        unscanned = functional(model, **{**kwargs, **seen_through})
    abstract = nnx.eval_shape(lambda: model(**kwargs, rngs=nnx.Rngs(0)))
    graphdef, *slots = nnx.split(abstract, nnx.Param, nnx.BatchStat, nnx.RngState, ...)
    param_slots, stat_slots, random_slots, other = map(nnx.to_flat_state, slots)
    if other:
        found = ", ".join(
            f"{_name(path)} ({type(variable).__name__})" for path, variable in other
        )
        raise TypeError(
            f"model: {found} is neither nnx.Param, nnx.BatchStat nor random state; "
            "make it one of these, or a plain constant computed in __call__"
        )

    def init(key: Array) -> tuple[Params, Stats]:
        module = model(**kwargs, rngs=nnx.Rngs(key))
        graph: Any = nnx.split(module, nnx.Param, nnx.BatchStat, ...)
        _, params, stats, _ = graph
        return _to_dict(params), _to_dict(stats)

    def build(params: Params, stats: Stats, train: bool, key: Array | None) -> Any:
        if random_slots and train and key is None:
            raise ValueError(
                "key: this model draws random numbers in training; "
                "pass apply(..., key=a fresh key each step)"
            )
        return nnx.merge(
            graphdef,
            _from_dict(param_slots, params, "params"),
            _from_dict(stat_slots, stats, "stats"),
            _random_state(random_slots, key),
        )

    def apply(
        params: Params,
        stats: Stats,
        inputs: Any,
        *,
        train: bool,
        key: Array | None = None,
    ) -> tuple[Any, Stats]:
        module = build(params, stats, train, key)
        outputs = module(inputs, train=train)
        return outputs, _to_dict(nnx.state(module, nnx.BatchStat))

    def activations(
        params: Params,
        stats: Stats,
        inputs: Any,
        *,
        train: bool,
        key: Array | None = None,
    ) -> dict[str, Array]:
        if unscanned is not None:
            parts = unstack(params), unstack(stats)
            return unscanned.activations(*parts, inputs, train=train, key=key)
        kind = nnx.Intermediate
        forward: Any = nnx.capture(
            build(params, stats, train, key), kind, method_outputs=kind
        )
        _, seen = forward(inputs, train=train)
        found = {}
        for (*path, method), calls in nnx.to_flat_state(seen):
            output = calls.get_value()[-1]
            # The path of the model itself is empty; its outputs are those of apply.
            if path and method == "__call__" and isinstance(output, Array):
                found[_name(tuple(path))] = output
        return found

    return Functional(init, apply, activations)


def _name(path: tuple[Any, ...]) -> str:
    return "/".join(map(str, path))


def _to_dict(state: Any) -> dict[str, Any]:
    """A state as nested dictionaries; list positions become string keys."""
    tree: dict[str, Any] = {}
    for path, variable in nnx.to_flat_state(state):
        *parents, leaf = map(str, path)
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[leaf] = variable.get_value()
    return tree


def _from_dict(slots: Any, tree: dict[str, Any], argument: str) -> Any:
    """The inverse of `_to_dict`, guided by the abstract state's paths."""
    flat = []
    for path, variable in slots:
        value: Any = tree
        for part in map(str, path):
            if not isinstance(value, dict) or part not in value:
                raise ValueError(
                    f"{argument}: no entry {_name(path)}; pass the tree that init "
                    "returned, or one of the same structure"
                )
            value = value[part]
        flat.append((path, variable.replace(value)))
    if len(jax.tree.leaves(tree)) > len(flat):
        raise ValueError(
            f"{argument}: {len(jax.tree.leaves(tree))} arrays for a model of "
            f"{len(flat)}; pass the tree that init returned for this model"
        )
    return nnx.from_flat_state(flat)


def _random_state(slots: Any, key: Array | None) -> Any:
    """Fresh random streams: stream i starts at `fold_in(key, i)`, its counter at 0."""
    key = jax.random.key(0) if key is None else key
    flat = []
    for index, (path, variable) in enumerate(slots):
        if isinstance(variable, nnx.RngKey):
            value = jax.random.fold_in(key, index)
        else:
            value = jax.numpy.zeros(variable.shape, variable.dtype)
        flat.append((path, variable.replace(value)))
    return nnx.from_flat_state(flat)
