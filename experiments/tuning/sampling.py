"""Searches: optuna chooses the settings that a sweep trains next.

Each round asks every search of the sweep for the next ``config.tuning.at_once`` points,
and tells it the losses of those before: the mean of ``report.metric`` over the seeds at
the end of training, infinite where a seed diverged. optuna's journal, ``search.jsonl``
in the sweep's folder, holds what was asked and told. What was trained is in the trials'
own folders, and what a round asks for follows from these alone: the n-th point of a
search is drawn with seed n. So a killed search goes on as if it had not been killed,
processes that share a folder ask for the same trials, and of a journal that is lost the
next run writes the same again without training anything.

``config.tuning.sampler`` is the dotted name of whatever makes a sampler of a ``seed``:
``optuna.samplers.RandomSampler``, or a function of one's own.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.experiments.config.resolve import ConfigError, build, check
from gnomon.experiments.config.search import LOG, NEAR_ONE, Interval, Search
from gnomon.experiments.config.trials import Trial
from gnomon.experiments.fleet.chunks import trial_folder
from gnomon.experiments.fleet.preparation import announcement, tell
from gnomon.experiments.records.direction import with_errors
from gnomon.experiments.records.done import read_result
from gnomon.experiments.records.locks import lock
from gnomon.experiments.tuning.widen import Added

JOURNAL = "search.jsonl"


class Sampler:
    """The searches of a sweep, and the journal of what their samplers chose.

    Args:
      searches: of `gnomon.experiments.config.search.read_sweep`.
      workdir: the sweep's folder.

    Raises:
      ConfigError: a sampler that is none, or that takes no seed.
    """

    def __init__(self, searches: Sequence[Search], workdir: Path) -> None:
        self._searches, self._workdir = searches, workdir
        for one in searches:
            spec, known = {"name": one.tuning["sampler"]}, {"seed": ""}
            check(spec, "tuning.sampler", provided=known)

    def asked(self) -> list[Added]:
        """Every trial that is asked for, once those before have told their losses.

        What is done is told, and where that is a whole round the next one is asked for:
        as long as a trial is new to the caller, there is more to train.
        """
        import optuna
        from optuna.storages.journal import JournalFileBackend

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        waiting = announcement(self._workdir, tell)
        path = self._workdir / JOURNAL
        with lock(self._workdir / "lock", blocking=True, waiting=waiting):
            _mend(path)
            held: Any = _Held()
            backend = JournalFileBackend(str(path), held)
            storage = optuna.storages.JournalStorage(backend)
            found: dict[str, Added] = {}
            for one in self._searches:
                study = optuna.create_study(
                    storage=storage, study_name=one.key, load_if_exists=True
                )
                for values in self._points(study, one):
                    first = next(iter(values.values()))
                    for trial in one.trials(values):
                        found.setdefault(trial.id, Added(trial, first))
        return list(found.values())

    def _points(self, study: Any, one: Search) -> list[dict[str, float]]:
        """The points of a search, those among them that are yet to be trained."""
        from optuna.trial import TrialState

        budget, at_once = one.tuning["trials"], one.tuning["at_once"]
        space = {f: _distribution(interval) for f, interval in one.intervals.items()}
        while True:
            points, running = [], 0
            for asked in study.get_trials(deepcopy=False):
                if asked.params.keys() != space.keys():
                    # Killed while it asked: nobody has seen the point.
                    if asked.state == TrialState.RUNNING:
                        study.tell(asked.number, state=TrialState.FAIL)
                    continue
                values = {
                    f: _value(i, asked.params[f]) for f, i in one.intervals.items()
                }
                points.append(values)
                if asked.state == TrialState.RUNNING:
                    loss = self._loss(one.trials(values))
                    if loss is None:
                        running += 1
                    else:
                        study.tell(asked.number, loss)
            count = len(points)
            if count >= budget or (running and count % at_once == 0):
                return points[:budget]
            for number in range(count, min(budget, (count // at_once + 1) * at_once)):
                # Its own seed, so that what is drawn does not depend on who draws.
                seed = int(np.random.SeedSequence(number).generate_state(1)[0])
                study.sampler = build({"name": one.tuning["sampler"]}, seed=seed)
                study.ask(space)

    def _loss(self, trials: Sequence[Trial]) -> float | None:
        """What a point came to; None while a trial of it is not done."""
        losses = []
        for trial in trials:
            result = read_result(trial_folder(self._workdir, trial.id), trial.id)
            if result is None:
                return None
            metric = trial.config["report"]["metric"]
            final = with_errors(result["final"])
            if result["status"] != "finished":
                losses.append(math.inf)
            elif metric not in final:
                have = ", ".join(final)
                raise ConfigError(
                    f"config.report.metric={metric!r}: not recorded; there are: {have}"
                )
            else:
                losses.append(final[metric])
        mean = float(np.mean(losses))
        return mean if math.isfinite(mean) else math.inf


class _Held:
    """optuna's lock of its journal, for whoever holds the sweep's.

    optuna's own is a file that outlives a killed process.
    """

    def acquire(self) -> bool:
        return True

    def release(self) -> None:
        pass


def _mend(path: Path) -> None:
    """Takes from a journal the half of a line that a killed process left."""
    if path.exists():
        text = path.read_bytes()
        if not text.endswith(b"\n"):
            with open(path, "r+b") as file:
                file.truncate(text.rfind(b"\n") + 1)


def _distribution(interval: Interval) -> Any:
    from optuna import distributions

    low, high, scale = interval
    if scale == NEAR_ONE:
        return distributions.FloatDistribution(1 - high, 1 - low, log=True)
    if isinstance(low, int):
        return distributions.IntDistribution(low, int(high), log=scale == LOG)
    return distributions.FloatDistribution(low, high, log=scale == LOG)


def _value(interval: Interval, sampled: float) -> float:
    return interval.rounded(1 - sampled if interval.scale == NEAR_ONE else sampled)
