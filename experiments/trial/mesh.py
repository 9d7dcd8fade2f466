"""One trial over several devices: the batch over ``data``, the weights over ``model``.

    config.mesh = dict(data=2, model=4, rules=(("embed", (None, "model")),))

The program is the same; XLA partitions it, and each array stays on the devices that own
it. A trial takes ``data * model`` devices of its process; trained by several processes,
all devices of all of them. With both 1, the default, nothing is partitioned, and the
lanes of a sweep spread over the devices instead.

- Examples of a batch lie along ``data``.
- A matrix, or an array of more axes, is cut along its largest axis that ``model``
  divides, the last one among equals. Vectors, and what no axis fits, are whole on every
  device.
- A rule ``(regex, where)`` says otherwise for the parameters in whose path the regex is
  found; the first such rule counts. ``where`` is ``"data"`` or ``"model"``, to cut the
  largest axis that it divides; or, for each axis of the parameter, ``"data"``,
  ``"model"`` or None, with ``()`` for whole.
- The optimizer's state lies as the parameter does that it belongs to.
- ``rules="fsdp"``, or "fsdp" as the last rule, is fully sharded data parallelism:
  parameters, gradients and state are cut along ``data`` too, the largest axis that is
  whole and that it divides, or else the axis that ``model`` cuts already.
- ``rules="zero1"`` cuts so the state alone (ZeRO, stage 1): parameters are whole along
  ``data``. Each device moves its shard, and the new parameters are gathered.
- ``state_memory="pinned_host"`` keeps the optimizer's state in the host's memory, on
  one device as on many; it comes to the device for the step.

A mesh changes the order of sums, and so their rounding, as another number of devices
does: it is no part of a trial's id, and a checkpoint, which holds whole arrays, goes on
upon any mesh. To the bit, a run repeats on the same mesh only. Random numbers do not
depend on it. XLA cannot partition a Pallas kernel: on a mesh, optimizers and norms
must run in their plain form. Attention's cuts itself.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.experiments.config.devices import (
    AXES,
    NAMED,
    named_rule,
    rules_of,
    size_of,
)
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.spikes import rewinds
from gnomon.experiments.trial.signature import path_name

Path = tuple[Any, ...]
EVERY = ("", "model")  # where no rule counts
HOST = "pinned_host"  # the memory of the host that a device reads by itself


def specs_of(config: Mapping, params: Any) -> dict[Path, P]:
    """How each parameter is cut, by its path in the tree.

    Args:
      config: a config, checked by `check_mesh`.
      params: the parameters of one trial, arrays or their shapes.

    Raises:
      ConfigError: a rule does not fit a parameter that it names.

    Example:
      >>> config = {"mesh": {"data": 1, "model": 4, "rules": [["norm", []]]}}
      >>> w = jax.ShapeDtypeStruct((6, 8), "float32")
      >>> [tuple(spec) for spec in specs_of(config, {"norm": w, "up": w}).values()]
      [(), (None, 'model')]
    """
    return _specs(config, params, ("fsdp",))


def state_specs_of(config: Mapping, params: Any) -> dict[Path, P]:
    """How the state of each parameter is cut, by the parameter's path.

    Args:
      config: a config, checked by `check_mesh`.
      params: the parameters of one trial, arrays or their shapes.

    Example:
      >>> config = {"mesh": {"data": 4, "model": 2, "rules": "zero1"}}
      >>> w = {"w": jax.ShapeDtypeStruct((6, 8), "float32")}
      >>> [*specs_of(config, w).values(), *state_specs_of(config, w).values()]
      [P(None, 'model'), P(None, ('model', 'data'))]
    """
    return _specs(config, params, NAMED)


def _specs(config: Mapping, params: Any, cutting: Sequence[str]) -> dict[Path, P]:
    rules = [*rules_of(config), EVERY]
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {
        path: _spec(config["mesh"], rules, path_name(path), leaf.shape, cutting)
        for path, leaf in leaves
    }


def _spec(
    mesh: Mapping[str, Any],
    rules: Sequence[Any],
    name: str,
    shape: Sequence[int],
    cutting: Sequence[str],
) -> P:
    rule = next(r for r in rules if r in NAMED or re.search(r[0], name))
    if rule in NAMED:
        spec = _largest("model", mesh.get("model", 1), shape)
        return _also("data", mesh, shape, spec) if rule in cutting else spec
    regex, where = rule
    if isinstance(where, str):
        return _largest(where, mesh.get(where, 1), shape)
    refused = f"config.mesh.rules: {regex!r} does not fit {name} {tuple(shape)}: "
    fix = "; add a rule for it before this one"
    if len(where) > len(shape):
        raise ConfigError(f"{refused}it names {len(where)} axes{fix}")
    for size, axis in zip(shape, where, strict=False):
        if axis is not None and size % mesh.get(axis, 1):
            parts = f"{axis}={mesh[axis]}"
            raise ConfigError(f"{refused}{parts} does not divide {size}{fix}")
    return P(*where)


def _largest(axis: str, parts: int, shape: Sequence[int]) -> P:
    fitting = [at for at, size in enumerate(shape) if size % parts == 0]
    if parts == 1 or len(shape) < 2 or not fitting:
        return P()
    largest = max(fitting, key=lambda at: (shape[at], at))
    return P(*[None] * largest, axis)


def _also(axis: str, mesh: Mapping[str, Any], shape: Sequence[int], spec: P) -> P:
    """A spec that cuts an axis of the mesh more: along what is whole, or further."""
    taken = _full(spec, shape)
    whole = [1 if name else size for size, name in zip(shape, taken, strict=True)]
    further = _largest(axis, mesh.get(axis, 1), whole)
    if len(further):
        return P(*(f or t for f, t in zip(_full(further, shape), taken, strict=True)))
    for at, name in enumerate(taken):
        if name and shape[at] % (mesh[name] * mesh.get(axis, 1)) == 0:
            return P(*taken[:at], (name, axis))
    return spec


def _full(spec: P, shape: Sequence[int]) -> list:
    return [*spec, *[None] * (len(shape) - len(spec))]


def whole_leaves(config: Mapping, state: Any) -> list[tuple[str, int]]:
    """What a rule with a name leaves whole: vectors, and what ``data`` does not divide.

    Args:
      config: the trial's config.
      state: the abstract state of one trial.

    Returns:
      Paths of parameters, where those are cut, and of the optimizer's state, with the
      bytes of each.
    """
    if (named := named_rule(config)) is None or config["mesh"].get("data", 1) == 1:
        return []
    fields = ("params", "opt_state") if named == "fsdp" else ("opt_state",)
    specs = _state_specs(config, state)
    return [
        (path_name(path), leaf.size * leaf.dtype.itemsize)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
        if path_name(path[:1]) in fields
        and leaf.ndim
        and "data" not in jax.tree.leaves(tuple(specs[path]))
    ]


def device_mesh(config: Mapping) -> jax.sharding.Mesh:
    """The mesh of one trial: the first local devices, or those of all processes.

    Raises:
      ConfigError: there are fewer devices, or, of several processes, not as many or
        a trial that rewinds.
    """
    shape = tuple(config["mesh"].get(axis, 1) for axis in AXES)
    devices, wanted = jax.local_devices(), size_of(config)
    needs = f"config.mesh: data={shape[0]} times model={shape[1]} needs {wanted}"
    if (processes := jax.process_count()) > 1:
        if rewinds(config):
            raise ConfigError(
                "config.spikes.action='rewind' goes back in a run of one process; of"
                f" {processes}, 'skip' or 'record'"
            )
        devices = jax.devices()
        if wanted != len(devices):
            raise ConfigError(
                f"{needs} devices, and the {processes} processes of this run have"
                f" {len(devices)} ({devices[0].device_kind}); give a mesh of as many,"
                f" such as --config.mesh.data={len(devices)}"
            )
    if wanted > len(devices):
        raise ConfigError(
            f"{needs} devices, and this process has {len(devices)}"
            f" ({devices[0].device_kind})"
        )
    auto = jax.sharding.AxisType.Auto
    return jax.make_mesh(shape, AXES, (auto, auto), devices=devices[:wanted])


def shardings_of(config: Mapping, mesh: jax.sharding.Mesh, state: Any) -> Any:
    """The sharding of each leaf of a training state, below a lane axis that is whole.

    Args:
      config: the trial's config.
      mesh: `device_mesh` of it.
      state: the abstract state of one trial; ``state.params`` are its parameters.
    """
    specs = _state_specs(config, state)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: NamedSharding(mesh, P(None, *specs[path])), state
    )


def _state_specs(config: Mapping, state: Any) -> dict[Path, P]:
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    shapes = {path: leaf.shape for path, leaf in leaves}
    params, others = (
        specs_of(config, state.params),
        state_specs_of(config, state.params),
    )

    def spec(path: Path, leaf: jax.ShapeDtypeStruct) -> P:
        # Optimizers keep trees like the parameters': the end of the path is the
        # parameter's. What has another shape (a factored moment) stays whole.
        specs = others if path_name(path[:1]) == "opt_state" else params
        for start in range(len(path)):
            if shapes.get(path[start:]) == leaf.shape:
                return specs[path[start:]]
        return P()

    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {path: spec(path, leaf) for path, leaf in leaves}


def with_state_memory(config: Mapping, shardings: Any) -> Any:
    """Shardings of a state whose optimizer's part lies where `config.mesh` says.

    Args:
      config: the trial's config.
      shardings: of each leaf of a training state.

    Raises:
      ConfigError: the devices have no such memory; it says what they have.
    """
    kind = config["mesh"].get("state_memory")
    if not kind:
        return shardings
    device = jax.local_devices()[0]
    known = {memory.kind for memory in device.addressable_memories()}
    if kind not in known & {HOST}:
        fix = f"use {HOST!r} or ''" if HOST in known else "use ''"
        raise ConfigError(
            f"config.mesh.state_memory={kind!r}: {device.device_kind} keeps no state"
            f" there; {fix}"
        )
    placed = jax.tree.map(lambda s: s.with_memory_kind(kind), shardings.opt_state)
    return shardings._replace(opt_state=placed)
