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
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import flags

from gnomon.experiments.config.changes import override
from gnomon.experiments.config.cli import Given, define_dry_run, launch, need_writers
from gnomon.experiments.config.fields import identity
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import Trial, make_trial
from gnomon.experiments.config.validation import validate
from gnomon.experiments.console.interrupt import Interruption
from gnomon.experiments.console.progress import Progress
from gnomon.experiments.console.shown import printable
from gnomon.experiments.data import Dataset, load
from gnomon.experiments.fleet.plan import plan_group, plan_table
from gnomon.experiments.hosts import join
from gnomon.experiments.hosts.crew import crew
from gnomon.experiments.records.done import read_result, write_result
from gnomon.experiments.records.files import read_json
from gnomon.experiments.trial import engine
from gnomon.experiments.trial.abstract import trace
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.cost import flops_per_step
from gnomon.experiments.trial.folder import begin, identity_in, same_run, shared
from gnomon.experiments.trial.lanes import compile_lanes
from gnomon.experiments.trial.mesh import device_mesh
from gnomon.experiments.trial.overview import parameter_table
from gnomon.experiments.trial.results import units_per_step
from gnomon.experiments.trial.resume import has_holes
from gnomon.experiments.trial.step import TrainState


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
    need_writers([config])
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
        about = mates.told(lambda: begin(trial, dataset, workdir, stack))
        if "result" in about:
            return about["result"]
        if not mates.alone:
            mates.together(lambda: shared(workdir, about["run"]))
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
    config, about = read_json(workdir / "config.json"), identity_in(workdir)
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
