"""Trains one config: ``python -m gnomon.experiments.train --config=... --workdir=...``.

The same command again goes on from the last checkpoint, or says that the run is
done. Interrupted or killed and run again, it ends with the parameters, to the bit,
that an uninterrupted run ends with. ``--dry_run`` prints what a step needs and how
long the run will take, and writes nothing.

With ``--distributed`` several processes train it together, on a ``config.mesh`` of all
their devices: each runs the same command, on a folder that they share
(``docs/machines.md``).
"""

import contextlib
import math
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from gnomon.experiments.config.changes import override
from gnomon.experiments.config.cli import Given, define_dry_run, launch, need
from gnomon.experiments.config.fields import LEFT_OUT, identity
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.template import plain
from gnomon.experiments.config.trials import Trial, make_trial
from gnomon.experiments.config.validation import validate
from gnomon.experiments.console.interrupt import Interruption
from gnomon.experiments.console.progress import Progress
from gnomon.experiments.console.shown import printable
from gnomon.experiments.data import Dataset, load
from gnomon.experiments.data.origin import check_data, fingerprints
from gnomon.experiments.fleet.plan import plan_group, plan_table
from gnomon.experiments.hosts import join
from gnomon.experiments.hosts.crew import crew
from gnomon.experiments.records.done import lost_rows, read_result, write_result
from gnomon.experiments.records.files import clean, read_json, read_object, write_json
from gnomon.experiments.records.locks import lock
from gnomon.experiments.records.runs import flatten
from gnomon.experiments.trial import engine
from gnomon.experiments.trial.abstract import trace
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.cost import flops_per_step
from gnomon.experiments.trial.lanes import compile_lanes
from gnomon.experiments.trial.mesh import device_mesh
from gnomon.experiments.trial.overview import parameter_table
from gnomon.experiments.trial.results import units_per_step
from gnomon.experiments.trial.resume import has_holes
from gnomon.experiments.trial.step import TrainState


def same_run(workdir: Path, trial: Trial) -> None:
    """Refuses to go on in a folder that holds another run.

    Raises:
      ConfigError: names the first field that differs.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    saved = read_object(path, data=dict, model=dict, optimizer=dict, steps=int)
    old, new = flatten(saved), flatten(plain(trial.config))
    # A component's name first: its keywords differ because it does.
    fields = sorted(old.keys() | new.keys(), key=lambda f: (not f.endswith(".name"), f))
    for field in fields:
        if field.split(".")[0] not in LEFT_OUT and old.get(field) != new.get(field):
            raise ConfigError(
                f"--workdir={workdir} holds another run: config.{field} was"
                f" {old.get(field)!r} and is now {new.get(field)!r};"
                " use another --workdir, or the old value to go on"
            )


def same_data(
    workdir: Path, trial: Trial, dataset: Dataset
) -> dict[str, str | dict[str, str]]:
    """Refuses to go on with other data; returns what ``run.json`` is to hold.

    Raises:
      ConfigError: names the data set.
    """
    path = workdir / "run.json"
    data = fingerprints([(trial.config["data"], dataset)])
    if path.exists():
        old = read_object(path, run=str, trial=str, data=dict)
        check_data(workdir, old["data"], data)
        return old | {"trial": trial.id}
    # A lost file does not make the run another one.
    run = Checkpoints(workdir / "checkpoints").owner().get("run") or uuid.uuid4().hex
    return {"run": run, "trial": trial.id, "data": data}


class Checked(NamedTuple):
    """What was found before anything is written; no data where the run is done."""

    trial: Trial
    dataset: Dataset | None
    state: TrainState | None

    def name(self) -> str:
        """What must be the same wherever it is trained."""
        data = "" if self.dataset is None else f", data {self.dataset.fingerprint[:12]}"
        return f"trial {self.trial.id}{data}"


def _check(config: dict[str, Any], workdir: Path) -> Checked:
    """Refuses all that can be refused before anything is written."""
    validate(config)
    if config["tensorboard"]:
        need("tensorboardX", "config.tensorboard=True (False goes without)")
    for name in config["writers"]:
        need(name, f"config.writers.{name}")
    trial = make_trial(config)
    same_run(workdir, trial)
    if read_result(workdir, trial.id) is not None:
        return Checked(trial, None, None)
    dataset = load(config["data"])
    state = trace(config, dataset)
    device_mesh(config)
    return Checked(trial, dataset, state)


def train(config: dict[str, Any], workdir: str | os.PathLike[str]) -> dict:
    """Trains one config in a folder, from its last checkpoint if it has one.

    Several processes that `jax.distributed.initialize` has joined train it together
    when each calls this. Process 0 alone writes in the folder, but for the others'
    parts of checkpoints.

    Args:
      config: a plain config (`gnomon.experiments.config.source.load`).
      workdir: its folder; gets ``config.json``, ``run.json`` (an id of this run, and
        its data's fingerprint), ``metrics.jsonl``, TensorBoard events,
        ``checkpoints/`` and, last, ``result.json``.

    Returns:
      The result.

    Raises:
      ConfigError: a field that cannot work, or a folder that holds another run.
      Interrupted: stopped on request, after a checkpoint.
    """
    config, workdir = override(config, {}), Path(workdir)
    mates = crew()
    checked: list[Checked] = []

    def check() -> str:
        checked.append(_check(config, workdir))
        return checked[0].name()

    mates.same("config, or other data,", check)
    trial, dataset, state = checked[0]
    with contextlib.ExitStack() as stack:
        about = mates.told(lambda: _begin(trial, dataset, workdir, stack))
        if "result" in about:
            return about["result"]
        assert dataset is not None
        assert state is not None
        if mates.writes:
            print(parameter_table(state.params))
        lanes = compile_lanes([trial], dataset)
        interruption = stack.enter_context(Interruption())
        watch = stack.enter_context(_watched(config, dataset, mates.writes))
        owner = {"trial": trial.id, "run": about["run"]}
        chunk = engine.Chunk([trial], [workdir], workdir / "checkpoints", owner)
        (result,) = engine.run(
            chunk,
            lanes,
            dataset,
            flops_per_step=flops_per_step(config, dataset),
            watch=watch,
            stop=lambda: interruption.requested,
        )
        return mates.told(lambda: write_result(workdir, result))


def _begin(
    trial: Trial,
    dataset: Dataset | None,
    workdir: Path,
    stack: contextlib.ExitStack,
) -> dict[str, Any]:
    """Takes the folder, and says in it what is trained; or finds the ``result``."""
    held = stack.enter_context(lock(workdir / "lock"))
    if not held.acquired:
        raise ConfigError(f"--workdir={workdir} is in use by {held.owner}")
    same_run(workdir, trial)
    if (result := read_result(workdir, trial.id)) is not None:
        print(f"{workdir} is done; its result is in result.json")
        # What `load_state` reads is there, and whole.
        if not (workdir / "config.json").exists():
            write_json(workdir / "config.json", trial.config)
        _identity(workdir)
        if lost := lost_rows(workdir, result):
            print(lost, file=sys.stderr)
        return {"result": result}
    assert dataset is not None
    about = same_data(workdir, trial, dataset)
    for name, content in (("config", trial.config), ("run", about)):
        clean(workdir / f"{name}.json")
        write_json(workdir / f"{name}.json", content)
    clean(workdir / "result.json")
    return about


@contextlib.contextmanager
def _watched(
    config: dict[str, Any], dataset: Dataset, speaks: bool
) -> Iterator[Callable[[engine.Tick], None]]:
    """Shows progress while entered, in the process that speaks."""
    if not speaks:
        yield lambda tick: None
        return
    units = units_per_step(config, dataset)
    unit = f"{dataset.unit}s"
    with Progress(config["steps"], unit=unit, units_per_step=units) as progress:
        yield lambda tick: progress.update(
            tick.step, loss=None if tick.losses is None else tick.losses[0]
        )


def dry_run(config: dict[str, Any], peak: float = 0.0) -> str:
    """The plan of a run as tables; compiles and times, and writes nothing.

    Args:
      config: a plain config.
      peak: FLOPs a second that a device can do at most; 0 where it is to be known.

    Raises:
      ConfigError: a field that cannot work.
    """
    if not crew().alone:
        raise ConfigError("--dry_run plans in one process: leave out --distributed")
    config = override(config, {})
    validate(config)
    trial, dataset = make_trial(config), load(config["data"])
    trace(config, dataset)
    device_mesh(config)
    return plan_table([plan_group(trial.label, [trial], dataset, peak=peak)])


def _identity(workdir: Path) -> dict[str, Any]:
    """Whose the folder's checkpoints must be; empty where it does not say."""
    try:
        about = read_object(workdir / "run.json", run=str, trial=str)
    except FileNotFoundError:
        return {}
    return {"trial": about["trial"], "run": about["run"]}


def load_state(workdir: str | os.PathLike[str]) -> TrainState:
    """The newest saved state of a run: parameters, optimizer state, statistics.

    It only reads, and may do so while the run is under way.
    The state takes its form from the model and the optimizer, so this imports and
    calls what the folder's ``config.json`` names: load no folder that you would not
    run a program from. `gnomon.experiments.trial.arrays.load_arrays` imports nothing.

    Args:
      workdir: the folder of a run that `train` made, finished or not.

    Raises:
      FileNotFoundError: the folder holds no run, or no good checkpoint.
      ConfigError: a checkpoint or a config that belongs to another run, or a
        checkpoint that was renamed.
    """
    workdir = Path(workdir)
    config, about = read_json(workdir / "config.json"), _identity(workdir)
    if about and identity(config) != about["trial"]:
        raise ConfigError(
            f"{workdir}: config.json is that of trial {identity(config)}, and run.json"
            f" names {about['trial']}; bring back the config that was trained"
        )
    state = trace(config, load(config["data"]))
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), state
    )
    folder = workdir / "checkpoints"
    with Checkpoints(folder, identity=about) as checkpoints:
        restored = checkpoints.restore(target, optional=("probes",))
    if restored is None:
        raise FileNotFoundError(f"{workdir} holds no checkpoint that can be read")
    saved = restored[1]
    if has_holes(saved.probes):  # the config now asks for other probes
        saved = saved._replace(probes={})
    return jax.tree.map(lambda leaf: leaf[0], saved)


def main(given: Given) -> None:
    """The command."""
    if given.flags.dry_run:
        print(printable(dry_run(given.config, given.flags.peak_flops), keep="\n"))
        return
    result = train(given.config, given.workdir)
    if not crew().writes:
        return
    final = ", ".join(
        f"{name} {_shown(value)}" for name, value in result["final"].items()
    )
    print(f"{result['status']}: {printable(final)}")


def _shown(value: float | None) -> str:
    finite = value is not None and math.isfinite(value)
    return f"{value:.4f}" if finite else "not finite"


def define(values: flags.FlagValues) -> None:
    """Defines the flags of a run."""
    join.define(values)
    define_dry_run(values)


def run(argv: Sequence[str] | None = None) -> None:
    """Entry point of the console script."""
    launch(main, __doc__, define, argv, join.joined)


if __name__ == "__main__":
    run()
