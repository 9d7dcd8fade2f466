"""What a sweep will do and cost, before it does it."""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gnomon.experiments.config.devices import size_of
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import Trial, split
from gnomon.experiments.console.progress import format_duration
from gnomon.experiments.console.table import table
from gnomon.experiments.data import Dataset
from gnomon.experiments.records.runs import flatten
from gnomon.experiments.trial.abstract import batch_shapes
from gnomon.experiments.trial.cost import flops_per_step, memory_budget
from gnomon.experiments.trial.lanes import (
    Lanes,
    compile_lanes,
    hypers_of,
    padded,
    seeds_of,
)
from gnomon.experiments.trial.needs import Needs, needs_of, needs_table
from gnomon.models import parameter_count


class GroupPlan(NamedTuple):
    """The plan of one group.

    Attributes:
      name: the fields in which it differs from the other groups.
      trials: how many trials it has.
      lanes: how many run side by side.
      parameters: trained numbers of one model.
      flops: training FLOPs of all its trials.
      bytes: memory of a dispatch with ``lanes`` lanes, on a device.
      seconds: estimated time of all its trials, compilation included.
      needs: what the program of one chunk needs.
    """

    name: str
    trials: int
    lanes: int
    parameters: int
    flops: float
    bytes: int
    seconds: float
    needs: Needs | None = None


def group_names(grouped: Mapping[str, Sequence[Trial]]) -> dict[str, str]:
    """Names groups by label and by the static fields in which they differ."""
    flats = {
        key: flatten(split(trials[0].config)[0] | {"steps": trials[0].config["steps"]})
        for key, trials in grouped.items()
    }
    fields = sorted({field for flat in flats.values() for field in flat})
    varying = [
        field
        for field in fields
        if not field.startswith(("optimizer.", "schedule."))
        and len({str(flat.get(field)) for flat in flats.values()}) > 1
    ]
    return {
        key: " ".join(
            [
                "+".join(sorted({t.label for t in trials})),
                *(
                    f"{f.split('.')[-1]}={flats[key][f]}"
                    for f in varying
                    if flats[key].get(f) is not None
                ),
            ]
        )
        for key, trials in grouped.items()
    }


def fit_lanes(
    trials: Sequence[Trial], dataset: Dataset, forced: int = 0
) -> tuple[int, Lanes]:
    """Chooses how many trials run side by side, and compiles for that many.

    Args:
      trials: the trials of a group, or those of it that are left.
      dataset: their data.
      forced: the most lanes to use, if above 0.

    Returns:
      The number of lanes, and the compiled program of the first so many trials.

    Raises:
      ConfigError: one trial alone does not fit the device's memory.
    """
    budget = memory_budget()
    # A trial on a mesh has all of the devices: no other gains from running beside it.
    most = 1 if size_of(trials[0].config) > 1 else len(trials)
    lanes = min(forced or most, most)
    while True:
        compiled = compile_lanes(trials[:lanes], dataset)
        if compiled.bytes <= budget:
            return lanes, compiled
        if lanes == 1:
            raise ConfigError(
                f"one trial needs {compiled.bytes / 2**30:.1f} GiB and"
                f" {budget / 2**30:.1f} GiB are free; lower config.batch"
                " or the model, or lay it on more devices with config.mesh"
            )
        lanes = max(1, min(lanes - 1, int(lanes * budget / compiled.bytes)))


def plan_group(
    name: str,
    trials: Sequence[Trial],
    dataset: Dataset,
    forced: int = 0,
    peak: float = 0.0,
) -> GroupPlan:
    """Compiles a group and times a few of its steps; writes nothing."""
    config = trials[0].config
    started = time.monotonic()
    lanes, compiled = fit_lanes(trials, dataset, forced)
    chosen = padded(trials[:lanes])
    seeds, distinct, which = seeds_of(chosen)
    hypers = jax.tree.map(jnp.asarray, hypers_of(chosen))
    state = compiled.init(jnp.asarray(seeds), hypers)
    sizes = (compiled.most, len(distinct)) if compiled.most > 1 else (len(distinct),)
    batch = {
        key: jnp.zeros((*sizes, *shape.shape), shape.dtype)
        for key, shape in batch_shapes(dataset.train, config["batch"]).items()
    }
    ready = time.monotonic() - started
    times = []
    for _ in range(4):
        begin = time.monotonic()
        if compiled.most > 1:
            batch = jax.device_put(batch, compiled.place.blocks)
            how = np.int32(1), np.bool_(False), jnp.asarray(which), hypers
            state, _ = compiled.steps(state, batch, *how)
        else:
            state = compiled.step(state, batch, jnp.asarray(which), hypers)
        jax.block_until_ready(state)
        times.append(time.monotonic() - begin)
    chunks = -(-len(trials) // lanes)
    return GroupPlan(
        name=name,
        trials=len(trials),
        lanes=lanes,
        parameters=parameter_count(state.params) // len(chosen),
        flops=flops_per_step(config, dataset) * config["steps"] * len(trials),
        bytes=compiled.bytes,
        seconds=chunks * (config["steps"] * min(times) + ready),
        needs=needs_of(
            config, dataset, compiled, count=lanes, seconds=min(times), peak=peak
        ),
    )


def plan_table(plans: Sequence[GroupPlan]) -> str:
    """The plan as a table with its totals, and one of what its programs need."""
    total = GroupPlan(
        name="all",
        trials=sum(plan.trials for plan in plans),
        lanes=0,
        parameters=0,
        flops=sum(plan.flops for plan in plans),
        bytes=max(plan.bytes for plan in plans),
        seconds=sum(plan.seconds for plan in plans),
    )
    head = ["group", "trials", "lanes", "parameters", "FLOPs", "memory"]
    rows = [
        (
            plan.name,
            str(plan.trials),
            str(plan.lanes or ""),
            f"{plan.parameters:,}" if plan.parameters else "",
            f"{plan.flops:.2e}",
            f"{plan.bytes / 2**20:.0f} MiB",
            format_duration(plan.seconds),
        )
        for plan in [*plans, total]
    ]
    planned = table([[*head, "estimated time"], *rows], words=1, total=True)
    needs = [(plan.name, plan.needs) for plan in plans if plan.needs is not None]
    return f"{planned}\n\n{needs_table(needs)}" if needs else planned
