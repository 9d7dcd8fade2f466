"""Where the arrays of a chunk lie: lanes side by side, or each on a mesh."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.experiments.config.devices import size_of
from gnomon.experiments.trial.mesh import device_mesh, shardings_of, with_state_memory
from gnomon.experiments.trial.step import TrainState


class Placement(NamedTuple):
    """Where the arrays of a chunk lie.

    Attributes:
      spread: how many parts the lane axis is cut into.
      lanes: of arrays with a leading lane axis.
      batches: of a step's batches, by distinct seed.
      blocks: of a dispatch's batches, by step and distinct seed.
      held_out: of validation batches, by number, shared by the lanes.
      state: of each leaf of the state.
    """

    spread: int
    lanes: NamedSharding
    batches: NamedSharding
    blocks: NamedSharding
    held_out: NamedSharding
    state: Any


def lane_mesh(lanes: int) -> jax.sharding.Mesh:
    """The local devices that the lanes are spread over, as many for each."""
    devices = jax.local_devices()[:lanes]
    return jax.make_mesh(
        (len(devices),), ("lane",), (jax.sharding.AxisType.Auto,), devices=devices
    )


def on_mesh(
    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh, function: Callable
) -> Callable:
    """A function that finds the mesh it is traced for: kernels must cut themselves."""

    def call(*arguments: Any) -> Any:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments)

    return call


def placement_of(config: Mapping, lanes: int, state: TrainState) -> Placement:
    """Lanes side by side on devices of their own, or each on the mesh of its config.

    Args:
      config: what the lanes have in common.
      lanes: how many there are.
      state: the abstract state of one of them.
    """
    if size_of(config) == 1:
        mesh = lane_mesh(lanes)
        mine, ours = (NamedSharding(mesh, spec) for spec in (P("lane"), P()))
        every = with_state_memory(config, jax.tree.map(lambda leaf: mine, state))
        return Placement(mesh.size, mine, ours, ours, ours, every)
    mesh = device_mesh(config)
    # Before the axis of the examples: the seeds, or the steps and the seeds.
    whole, batches, blocks = (
        NamedSharding(mesh, spec)
        for spec in (P(), P(None, "data"), P(None, None, "data"))
    )
    states = with_state_memory(config, shardings_of(config, mesh, state))
    return Placement(1, whole, batches, blocks, batches, states)
