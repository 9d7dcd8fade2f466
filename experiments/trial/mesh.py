"""One trial over several devices: the batch over ``data``, the weights over ``model``.

    config.mesh = dict(data=2, model=4, rules=(("embed", (None, "model")),))

The program is the same; XLA partitions it, and each array stays on the devices that own
it. A trial takes ``data * model`` local devices. With both 1, the default, nothing is
partitioned, and the lanes of a sweep spread over the devices instead.

- Examples of a batch lie along ``data``.
- A matrix, or an array of more axes, is cut along its largest axis that ``model``
  divides, the last one among equals. Vectors, and what no axis fits, are whole on every
  device.
- A rule ``(regex, where)`` says otherwise for the parameters in whose path the regex is
  found; the first such rule counts. ``where`` is ``"data"`` or ``"model"``, to cut the
  largest axis that it divides; or, for each axis of the parameter, ``"data"``,
  ``"model"`` or None, with ``()`` for whole. ``rules=((".", "data"),)`` is fully
  sharded data parallelism.
- The optimizer's state lies as the parameter does that it belongs to.

A mesh changes the order of sums, and so their rounding, as another number of devices
does: it is no part of a trial's id, and a checkpoint, which holds whole arrays, goes on
upon any mesh. To the bit, a run repeats on the same mesh only. Random numbers do not
depend on it. XLA cannot partition a Pallas kernel: on a mesh, optimizers and models
must run in their plain form.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.experiments.config.devices import AXES, size_of
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.trial.signature import path_name

Path = tuple[Any, ...]


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
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {path: _spec(config["mesh"], path_name(path), x.shape) for path, x in leaves}


def _spec(mesh: Mapping[str, Any], name: str, shape: Sequence[int]) -> P:
    rules = [*mesh.get("rules", ()), ("", "model")]
    regex, where = next(rule for rule in rules if re.search(rule[0], name))
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


def device_mesh(config: Mapping) -> jax.sharding.Mesh:
    """The mesh of one trial, over the first local devices.

    Raises:
      ConfigError: there are fewer devices.
    """
    shape = tuple(config["mesh"].get(axis, 1) for axis in AXES)
    devices, wanted = jax.local_devices(), size_of(config)
    if wanted > len(devices):
        raise ConfigError(
            f"config.mesh: data={shape[0]} times model={shape[1]} needs {wanted}"
            f" devices, and this process has {len(devices)} ({devices[0].device_kind})"
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
    leaves = jax.tree_util.tree_leaves_with_path(state.params)
    shapes = {path: leaf.shape for path, leaf in leaves}
    specs = specs_of(config, state.params)

    def sharding(path: Path, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        # Optimizers keep trees like the parameters': the end of the path is the
        # parameter's. What has another shape (a factored moment) stays whole.
        for start in range(len(path)):
            if shapes.get(path[start:]) == leaf.shape:
                return NamedSharding(mesh, P(None, *specs[path[start:]]))
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(sharding, state)
