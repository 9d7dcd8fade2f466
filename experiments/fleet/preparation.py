"""A checked sweep and what its folder says of it, before anything runs."""

import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gnomon.experiments.config.fields import LEFT_OUT, OPERATIONAL, digest
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import Trial, groups, split
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.data import Dataset, load
from gnomon.experiments.data.origin import check_data, fingerprints
from gnomon.experiments.fleet.chunks import trial_folder
from gnomon.experiments.fleet.plan import fit_lanes, group_names
from gnomon.experiments.records.done import lost_rows, read_result
from gnomon.experiments.records.files import clean, read_object, write_json
from gnomon.experiments.records.locks import lock
from gnomon.experiments.trial.abstract import trace
from gnomon.experiments.trial.cost import flops_per_step
from gnomon.experiments.trial.lanes import Lanes, compile_lanes
from gnomon.experiments.trial.mesh import device_mesh


class Programs(NamedTuple):
    """What has been compiled, by the form of a chunk: a later round may share it."""

    compiled: dict[str, Lanes]
    sizes: dict[str, int]


class Sweep:
    """A checked sweep: its trials, their data, and their compiled programs.

    Building one traces every group's program on shapes, so a trial that cannot run
    is refused before any other has started.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        max_lanes: int = 0,
        programs: Programs | None = None,
    ) -> None:
        # The longest first: processes that share a sweep then end together, and the
        # time left is over- and not underestimated.
        self.trials = sorted(
            trials,
            key=lambda t: -t.config["steps"] * flops_per_step(t.config, self.data(t)),
        )
        self.groups = groups(self.trials)
        self.names = group_names(self.groups)
        self.max_lanes = max_lanes
        self.programs = Programs({}, {}) if programs is None else programs
        traced = set()
        for group in self.groups.values():
            # Groups that differ in their steps alone have one program.
            config = group[0].config
            shown = {name: config[name] for name in OPERATIONAL}
            key = digest([split(config)[0], shown])
            if key in traced:
                continue
            traced.add(key)
            try:
                trace(config, self.data(group[0]))
            except ConfigError as error:
                raise ConfigError(f"trial {group[0].id}: {error}") from error

    def check_devices(self) -> None:
        """Refuses a mesh that needs more devices than this process has."""
        for group in self.groups.values():
            device_mesh(group[0].config)

    def data(self, trial: Trial) -> Dataset:
        """The data set of a trial; `load` keeps what it has read."""
        return load(trial.config["data"])

    def lanes(self, trials: Sequence[Trial]) -> Lanes:
        """The compiled program of a chunk, compiled once for chunks of one form."""
        key = self._form(trials)
        if key not in self.programs.compiled:
            self.programs.compiled[key] = compile_lanes(trials, self.data(trials[0]))
        return self.programs.compiled[key]

    def size(self, group: list[Trial]) -> int:
        """How many of a group's trials may run side by side."""
        # No more than may run, or each trial less in a group would compile anew.
        group = group[: self.max_lanes or None]
        key = self._form(group)
        if key not in self.programs.sizes:
            size, lanes = fit_lanes(group, self.data(group[0]), self.max_lanes)
            self.programs.sizes[key] = size
            self.programs.compiled[self._form(group[:size])] = lanes
        return self.programs.sizes[key]

    @staticmethod
    def _form(trials: Sequence[Trial]) -> str:
        seeds = len({trial.config["seed"] for trial in trials})
        return digest([split(trials[0].config)[0], len(trials), seeds])


def prepare(
    sweep: Sweep, workdir: Path, about: dict[str, Any], earlier: Sequence[Trial] = ()
) -> None:
    """Writes what the folder says of the sweep, after checking it is the same data.

    ``earlier`` are the trials that the sweep's own were added to.

    Raises:
      ConfigError: other data, or a file of the folder that is damaged.
    """
    trials = [*earlier, *sweep.trials]
    data = fingerprints((t.config["data"], sweep.data(t)) for t in trials)
    path = workdir / "sweep.json"
    with lock(workdir / "lock", blocking=True, waiting=announcement(workdir, tell)):
        if path.exists():
            old = read_object(path, data=dict)["data"]
            check_data(workdir, old, data)
            data = old | data
        for trial in sweep.trials:
            _describe(trial_folder(workdir, trial.id), trial)
        clean(path)
        ids = [trial.id for trial in trials]
        write_json(path, about | {"trials": ids, "data": data})


def _describe(folder: Path, trial: Trial) -> None:
    """Writes a trial's config; of one that is done, it keeps how that was trained."""
    path = folder / "config.json"
    clean(path)
    config = trial.config | {"label": trial.label}
    result = read_result(folder, trial.id)
    if result is not None:
        if lost := lost_rows(folder, result):
            tell(lost)
        with contextlib.suppress(FileNotFoundError, ConfigError):
            old = read_object(path, data=dict, model=dict, optimizer=dict, steps=int)
            # What its id tells is the trial's, whatever the file came to hold.
            kept = [key for key in LEFT_OUT if key not in ("report", "tuning")]
            config |= {key: old[key] for key in kept if key in old}
            if config == old:
                return
    write_json(path, config)


def tell(text: str) -> None:
    """Says a line to whoever gave the command."""
    print(text, file=sys.stderr)


def announcement(
    workdir: Path,
    say: Callable[[str], None],
    stop: Callable[[], bool] = lambda: False,
) -> Callable[[str], None]:
    """What to do while the folder's lock is held elsewhere: say by whom, once."""
    told: set[str] = set()

    def waiting(owner: str) -> None:
        if stop():
            raise Interrupted(f"stopped while waiting for {owner}")
        if owner not in told:
            told.add(owner)
            say(f"waiting for {workdir / 'lock'}, which is held by {owner}")

    return waiting
