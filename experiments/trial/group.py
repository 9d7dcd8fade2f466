"""One compiled program for all the trials of a group, and what it costs.

Trials of one static part run as lanes of one program: one compilation, one dispatch
a step. The lanes are spread over the local devices. Within a device they are a
`jax.vmap`, which fills an accelerator; on a CPU they are a `jax.lax.map`, because
XLA's CPU matrix products are fastest one model at a time
(``benchmarks/sweep_throughput.py`` measures both). One lane is the plain program.
Where `config.mesh` lays a trial on several devices, lanes run one after another
instead, each on all of them.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from gnomon.experiments.config.devices import size_of
from gnomon.experiments.config.resolve import ConfigError, resolve
from gnomon.experiments.config.trials import Trial, split
from gnomon.experiments.data import Dataset
from gnomon.experiments.trial.mesh import device_mesh, shardings_of, specs_of
from gnomon.experiments.trial.preflight import check_fixed, check_metric
from gnomon.experiments.trial.probes import due, settings_of
from gnomon.experiments.trial.program import TrainState, make_program


class Lanes(NamedTuple):
    """The compiled functions of a chunk of trials.

    Attributes:
      init: ``(seeds, hypers) -> state``; every leaf has a leading lane axis.
      step: ``(state, batches, which, hypers) -> state``; consumes ``state``. The
        batches are stacked by distinct seed, ``which`` gives each lane's.
      evaluate: ``(state, batch) -> metrics`` by lane, the batch shared.
      probes: by tier, ``(state, batches, which, hypers) -> (state, record)``, compiled
        when first called; they consume ``state`` as ``step`` does.
      state: the abstract state, for restoring a checkpoint.
      bytes: memory of one step, from XLA's own analysis.
    """

    init: Callable
    step: Callable
    evaluate: Callable
    probes: Mapping[str, Callable]
    state: TrainState
    bytes: int


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


def lane_mesh(lanes: int) -> jax.sharding.Mesh:
    """The local devices that the lanes are spread over, as many for each."""
    devices = jax.local_devices()[:lanes]
    return jax.make_mesh(
        (len(devices),), ("lane",), (jax.sharding.AxisType.Auto,), devices=devices
    )


class Placement(NamedTuple):
    """Where the arrays of a chunk lie.

    Attributes:
      spread: how many parts the lane axis is cut into.
      lanes: of arrays with a leading lane axis.
      batches: of training batches, by distinct seed.
      batch: of a validation batch, shared by the lanes.
      state: of each leaf of the state.
    """

    spread: int
    lanes: NamedSharding
    batches: NamedSharding
    batch: NamedSharding
    state: Any


def placement(config: Mapping, lanes: int, state: TrainState) -> Placement:
    """Lanes side by side on devices of their own, or each on the mesh of its config.

    Args:
      config: what the lanes have in common.
      lanes: how many there are.
      state: the abstract state of one of them.
    """
    if size_of(config) == 1:
        mesh = lane_mesh(lanes)
        mine, ours = (NamedSharding(mesh, spec) for spec in (P("lane"), P()))
        every = jax.tree.map(lambda leaf: mine, state)
        return Placement(mesh.size, mine, ours, ours, every)
    mesh = device_mesh(config)
    whole, batches, batch = (
        NamedSharding(mesh, spec) for spec in (P(), P(None, "data"), P("data"))
    )
    return Placement(1, whole, batches, batch, shardings_of(config, mesh, state))


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


def batch_shapes(examples: Mapping[str, np.ndarray], size: int) -> dict:
    """The abstract batch of ``size`` examples."""
    return {
        name: jax.ShapeDtypeStruct((size, *array.shape[1:]), array.dtype)
        for name, array in examples.items()
    }


def _enough(field: str, size: int, examples: Mapping[str, np.ndarray]) -> None:
    available = len(next(iter(examples.values())))
    if size > available:
        raise ConfigError(
            f"config.{field}={size}: the data has only {available} such examples"
        )


def trace(config: Mapping, dataset: Dataset) -> TrainState:
    """Runs a trial's program on shapes alone, so that what cannot work fails now.

    Args:
      config: a resolved trial config.
      dataset: its data.

    Returns:
      The abstract state of the trial.

    Raises:
      ConfigError: the model, optimizer, schedule or task refuses the config.
    """
    static, traced = split(config)
    hypers = {path: jnp.asarray(value) for path, value in traced.items()}
    batch = batch_shapes(dataset.train, config["batch"])
    _enough("batch", config["batch"], dataset.train)
    evaluate = config["evaluate"]
    _enough("evaluate.batch", evaluate["batch"], dataset.validation)
    try:
        program = make_program(static)
        seed = jax.ShapeDtypeStruct((), jnp.uint32)
        state = jax.eval_shape(program.init, seed, hypers, batch)
        specs_of(config, state.params)
        after = jax.eval_shape(program.step, state, batch, hypers)
        check_fixed(state, after, config["optimizer"]["name"])
        examples = batch_shapes(dataset.validation, evaluate["batch"])
        check_metric(config, state, jax.eval_shape(program.evaluate, state, examples))
        for tier in due(settings_of(config), 0, logging=True):
            jax.eval_shape(program.probes[tier], state, batch, hypers)
    except ConfigError:
        raise
    except jax.errors.ConcretizationTypeError as error:
        numbers = sorted(p.partition(".")[2] for p in traced if "." in p)
        raise ConfigError(
            f"config.optimizer: {config['optimizer']['name']} needs a number before"
            f" compilation that gnomon passes as traced input (one of {numbers});"
            " name it in config.static, e.g. config.static = ('eps',)"
        ) from error
    except Exception as error:
        raise ConfigError(
            f"model {config['model']['name']} with optimizer"
            f" {config['optimizer']['name']}: {type(error).__name__}: {error}"
        ) from error
    return state


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
    program = make_program(split(config)[0])
    lanes, distinct = len(trials), len(seeds_of(trials)[1])
    batch = batch_shapes(dataset.train, config["batch"])
    hypers = hypers_of(trials)
    seed = jax.ShapeDtypeStruct((), jnp.uint32)
    first = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), hypers)
    alone = jax.eval_shape(program.init, seed, first, batch)
    place = placement(config, lanes, alone)
    if size_of(config) > 1:
        how = "map"

    def spread(function: Callable, axes: Sequence[int | None]) -> Callable:
        local = across(function, axes, lanes // place.spread, how)
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

    def laned(x: Any, sharding: NamedSharding = place.lanes) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((lanes, *x.shape), x.dtype, sharding=sharding)

    state = jax.tree.map(laned, alone, place.state)
    hypers = jax.tree.map(laned, first)
    ours = place.batches
    which = laned(jax.ShapeDtypeStruct((), jnp.int32))
    stacked = {
        name: jax.ShapeDtypeStruct((distinct, *x.shape), x.dtype, sharding=ours)
        for name, x in batch.items()
    }
    compiled = (
        jax.jit(batched(program.step), donate_argnums=0, out_shardings=place.state)
        .lower(state, stacked, which, hypers)
        .compile()
    )
    return Lanes(
        init=jax.jit(init, in_shardings=place.lanes, out_shardings=place.state),
        step=compiled,
        evaluate=jax.jit(
            spread(program.evaluate, (0, None)),
            in_shardings=(place.state, place.batch),
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
        bytes=_memory(compiled),
    )


def _memory(compiled: Any) -> int:
    """Bytes XLA plans for one call: arguments, outputs, temporaries, less aliases."""
    plan = compiled.memory_analysis()
    if plan is None:
        return 0
    return (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        + plan.temp_size_in_bytes
        - plan.alias_size_in_bytes
    )


def memory_budget() -> int:
    """Bytes a program may plan for on the first device: 80 % of what is free."""
    device = jax.local_devices()[0]
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")
    return int(0.8 * free)


def flops_per_step(config: Mapping, dataset: Dataset) -> float:
    """Training FLOPs of one step of one trial: three forward passes.

    A backward pass costs twice its forward pass. A model class that has
    ``forward_flops(shape, **kwargs)`` counts its own; for any other model the forward
    pass is counted by XLA.
    """
    model = resolve(config["model"]["name"])
    kwargs = {key: value for key, value in config["model"].items() if key != "name"}
    batch = batch_shapes(dataset.train, config["batch"])
    if hasattr(model, "forward_flops"):
        inputs = next(iter(batch.values())).shape[1:]
        if "tokens" in batch:
            inputs = (inputs[0] - 1,)
        return 3.0 * config["batch"] * model.forward_flops(inputs, **kwargs)
    program = make_program(split(config)[0])
    state = trace(config, dataset)
    analysis = jax.jit(program.evaluate).lower(state, batch).cost_analysis()
    return 3.0 * float((analysis or {}).get("flops", 0.0))
