"""One compiled program for all the trials of a group.

Trials of one static part run as lanes of one program: one compilation, one dispatch
for all of them. The lanes are spread over the local devices. Within a device they are a
`jax.vmap`, which fills an accelerator; on a CPU they are a `jax.lax.map`, because
XLA's CPU matrix products are fastest one model at a time
(``benchmarks/sweep_throughput.py`` measures both). One lane is the plain program.
Where `config.mesh` lays a trial on several devices, lanes run one after another
instead, each on all of them.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.experiments.config.devices import size_of
from gnomon.experiments.config.trials import Trial, split
from gnomon.experiments.data import Dataset
from gnomon.experiments.trial.abstract import batch_shapes, of_one_lane
from gnomon.experiments.trial.cost import Memory, memory_of
from gnomon.experiments.trial.dispatch import looped, most_steps, slow_in_a_loop
from gnomon.experiments.trial.placement import Placement, on_mesh, placement_of
from gnomon.experiments.trial.program import make_program
from gnomon.experiments.trial.step import TrainState


class Lanes(NamedTuple):
    """The compiled functions of a chunk of trials.

    Attributes:
      init: ``(seeds, hypers) -> state``; every leaf has a leading lane axis.
      step: ``(state, batches, which, hypers) -> state``; consumes ``state``. The
        batches are stacked by distinct seed, ``which`` gives each lane's.
      steps: ``(state, batches, count, logging, which, hypers) -> (state, seen)``, so
        many steps in one dispatch (`gnomon.experiments.trial.dispatch.looped`), their
        batches stacked by step, and then by seed; consumes ``state``.
      most: how many steps that may be; with 1, ``step`` is what is compiled.
      evaluate: ``(state, batches) -> metrics`` by lane and batch, the batches shared
        by the lanes.
      probes: by tier, ``(state, batches, which, hypers) -> (state, record)``, compiled
        when first called; they consume ``state`` as ``step`` does.
      state: the abstract state, for restoring a checkpoint.
      place: where the arrays lie.
      memory: of one dispatch, from XLA's own analysis.
    """

    init: Callable
    step: Callable
    steps: Callable
    most: int
    evaluate: Callable
    probes: Mapping[str, Callable]
    state: TrainState
    place: Placement
    memory: Memory

    @property
    def bytes(self) -> int:
        """What a dispatch has on a device at once."""
        return self.memory.total


def across(
    function: Callable, axes: Sequence[int | None], lanes: int, how: str | None = None
) -> Callable:
    """Maps a function over the lanes of its arguments.

    Args:
      function: the function of one trial.
      axes: for each argument, 0 if it has a leading lane axis, None if it is shared.
      lanes: the length of the lane axis.
      how: "vmap" side by side, "map" one after another; by default the faster one
        for the platform. A single lane is neither: the plain program is what XLA's
        fast paths know and what kernels without a batching rule accept.
    """
    how = how or ("map" if jax.default_backend() == "cpu" else "vmap")
    if lanes > 1 and how == "vmap":
        return jax.vmap(function, tuple(axes))

    def one(arguments: Sequence[Any], shared: Sequence[Any]) -> Any:
        mapped, rest = iter(arguments), iter(shared)
        return function(*(next(mapped if axis == 0 else rest) for axis in axes))

    def sequential(*arguments: Any) -> Any:
        pairs = list(zip(arguments, axes, strict=True))
        mapped = [argument for argument, axis in pairs if axis == 0]
        shared = [argument for argument, axis in pairs if axis is None]
        if lanes > 1:
            return jax.lax.map(lambda lane: one(lane, shared), mapped)
        lane = jax.tree.map(lambda leaf: leaf[0], mapped)
        return jax.tree.map(lambda x: jnp.asarray(x)[None], one(lane, shared))

    return sequential


def padded(trials: Sequence[Trial]) -> list[Trial]:
    """The trials, the last one repeated until every device has as many lanes.

    A ghost lane costs less than a device that stands idle; its results are dropped.
    """
    if size_of(trials[0].config) > 1:
        return list(trials)
    devices = min(len(jax.local_devices()), len(trials))
    return [*trials, *[trials[-1]] * (-len(trials) % devices)]


def hypers_of(trials: Sequence[Trial]) -> dict[str, np.ndarray]:
    """The traced numbers of each trial, stacked by lane: float32, the steps int32."""
    rows = [split(trial.config)[1] for trial in trials]
    return {
        path: np.asarray(
            [row[path] for row in rows],
            np.int32 if isinstance(value, int) else np.float32,
        )
        for path, value in rows[0].items()
    }


def seeds_of(trials: Sequence[Trial]) -> tuple[np.ndarray, list[int], np.ndarray]:
    """The lanes' seeds, the distinct ones in order, and each lane's index in them."""
    seeds = [trial.config["seed"] for trial in trials]
    distinct = sorted(set(seeds))
    which = [distinct.index(seed) for seed in seeds]
    return np.asarray(seeds, np.uint32), distinct, np.asarray(which, np.int32)


def compile_lanes(
    trials: Sequence[Trial], dataset: Dataset, how: str | None = None
) -> Lanes:
    """Compiles the program of one chunk of a group.

    Args:
      trials: the lanes, in order; more are added where `padded` says so.
      dataset: their data.
      how: how the lanes of one device run (`across`).
    """
    trials = padded(trials)
    config = trials[0].config
    program = make_program(split(config)[0], dataset.bytes_per_unit)
    lanes, distinct = len(trials), len(seeds_of(trials)[1])
    batch = batch_shapes(dataset.train, config["batch"])
    hypers = hypers_of(trials)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    first = of_one_lane(hypers)
    alone = jax.eval_shape(program.init, seed, first, batch)
    place = placement_of(config, lanes, alone)
    if size_of(config) > 1:
        how = "map"

    def spread(function: Callable, axes: Sequence[int | None]) -> Callable:
        local = across(function, axes, lanes // place.spread, how)
        if size_of(config) > 1:
            return on_mesh(place.lanes.mesh, local)
        specs = tuple(P() if axis is None else P("lane") for axis in axes)
        if place.spread == 1:
            return local
        mesh = place.lanes.mesh
        return jax.shard_map(
            local, mesh=mesh, in_specs=specs, out_specs=P("lane"), check_vma=False
        )

    def init(seeds, hypers):
        lane = spread(lambda seed, h: program.init(seed, h, batch), (0, 0))
        return lane(seeds, hypers)

    def batched(function: Callable) -> Callable:
        def lane(state, index, hypers, batches):
            picked = jax.tree.map(lambda leaf: leaf[index], batches)
            return function(state, picked, hypers)

        def every(state, batches, which, hypers):
            return spread(lane, (0, 0, 0, None))(state, which, hypers, batches)

        return every

    def kept(step: Callable) -> Callable:
        """The step with its parameters, on a mesh, where they are between two steps.

        They lie otherwise as it suits XLA, which may cut parameters as their gradients
        are cut, and gather them at every use.
        """
        if size_of(config) == 1:
            return step
        cuts = jax.tree.map(
            lambda s: NamedSharding(s.mesh, P(*s.spec[1:])), place.state.params
        )

        def hold(state: TrainState) -> TrainState:
            held = jax.lax.with_sharding_constraint(state.params, cuts)
            return state._replace(params=held)

        return lambda state, batch, hypers: hold(step(hold(state), batch, hypers))

    def several(state, batches, count, logging, which, hypers):
        def lane(state, index, hypers, batches, count, logging):
            def pick(at):
                return jax.tree.map(lambda leaf: leaf[at, index], batches)

            return looped(kept(program.step))(state, pick, count, logging, hypers)

        axes = (0, 0, 0, None, None, None)
        return spread(lane, axes)(state, which, hypers, batches, count, logging)

    def evaluate(state, batches):
        def lane(state, batches):
            return jax.lax.map(lambda batch: program.evaluate(state, batch), batches)

        return spread(lane, (0, None))(state, batches)

    def laned(x: Any, sharding: NamedSharding = place.lanes) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((lanes, *x.shape), x.dtype, sharding=sharding)

    state = jax.tree.map(laned, alone, place.state)
    hypers = jax.tree.map(laned, first)
    which = laned(jax.ShapeDtypeStruct((), jnp.int32))
    size = sum(math.prod(x.shape) * x.dtype.itemsize for x in batch.values())
    most = most_steps(config, distinct * size)

    def stacked(sharding: NamedSharding, *sizes: int) -> dict:
        return {
            name: jax.ShapeDtypeStruct((*sizes, *x.shape), x.dtype, sharding=sharding)
            for name, x in batch.items()
        }

    step: Any = jax.jit(
        batched(kept(program.step)), donate_argnums=0, out_shardings=place.state
    )
    steps: Any = jax.jit(
        several, donate_argnums=0, out_shardings=(place.state, place.lanes)
    )
    lowered: Any = None
    if most > 1:
        blocks = stacked(place.blocks, most, distinct)
        count = jax.ShapeDtypeStruct((), jnp.int32)
        logging = jax.ShapeDtypeStruct((), jnp.bool_)
        lowered = steps.lower(state, blocks, count, logging, which, hypers)
        if slow_in_a_loop(lowered) and not config["steps_per_dispatch"]:
            most = 1
    if most > 1:
        compiled = steps = lowered.compile()
    else:
        batches = stacked(place.batches, distinct)
        compiled = step = step.lower(state, batches, which, hypers).compile()
    return Lanes(
        init=jax.jit(init, in_shardings=place.lanes, out_shardings=place.state),
        step=step,
        steps=steps,
        most=most,
        evaluate=jax.jit(
            evaluate,
            in_shardings=(place.state, place.held_out),
            out_shardings=place.lanes,
        ),
        probes={
            tier: jax.jit(
                batched(probe),
                donate_argnums=0,
                out_shardings=(place.state, place.lanes),
            )
            for tier, probe in program.probes.items()
        },
        state=state,
        place=place,
        memory=memory_of(compiled),
    )
