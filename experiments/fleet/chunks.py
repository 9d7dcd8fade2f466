"""Who runs what: chunks of trials, claimed so that no trial ever runs twice.

A chunk is some trials of one group that run as lanes of one program. Its folder
``chunks/<id>/`` holds ``chunk.json`` (the trials, in lane order, and the id of the
run, which its checkpoints bear too), a lock held by the process that runs it, and its
checkpoints. The lock is the kernel's (`flock`): a killed process frees it, and the
next to look goes on from the chunk's checkpoint.

A chunk's lock is taken only with the lock of the sweep's folder held. Results are
written without that lock, before the chunk's is released: whether a trial is done is
therefore asked again once its chunk is seen to be free.
"""

import shutil
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from gnomon.experiments.config.fields import digest
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import Trial, group_key, groups
from gnomon.experiments.records import done
from gnomon.experiments.records.files import clean, read_object, write_json
from gnomon.experiments.records.locks import Lock, lock


class Claim(NamedTuple):
    """A chunk that this process alone may run, until it releases the lock."""

    trials: list[Trial]
    folder: Path
    lock: Lock
    run: str | None = None

    @property
    def checkpoints(self) -> Path:
        """Where the chunk's checkpoints are."""
        return self.folder / "checkpoints"

    @property
    def identity(self) -> dict[str, Any]:
        """Whose checkpoints they are."""
        return {"trials": [trial.id for trial in self.trials], "run": self.run}


class Claimed(NamedTuple):
    """The answer to `claim`.

    Attributes:
      claim: the chunk to run, or None when no trial is free.
      busy: trials that other processes are running.
      owners: those processes, in words.
    """

    claim: Claim | None
    busy: int
    owners: tuple[str, ...] = ()


def trial_folder(workdir: Path, trial_id: str) -> Path:
    """A trial's own folder."""
    return workdir / "trials" / trial_id


def is_done(workdir: Path, trial: Trial) -> bool:
    """Whether a trial's result is written."""
    return done.read_result(trial_folder(workdir, trial.id), trial.id) is not None


def _manifest(folder: Path) -> Mapping[str, Any]:
    """What ``chunk.json`` says; for a chunk that was never begun, no trials."""
    try:
        return read_object(folder / "chunk.json", trials=list)
    except FileNotFoundError:
        return {"trials": []}
    except ConfigError as error:
        with lock(folder / "lock") as held:
            if held.acquired:  # nobody runs it: its trials are free
                return {"trials": []}
            raise ConfigError(f"{error}; {held.owner} runs the chunk") from error


def running(workdir: Path, trials: Iterable[Trial]) -> dict[str, str]:
    """The trials that processes are running, each with the owner's name."""
    pending = {trial.id for trial in trials}
    with lock(workdir / "lock") as held:
        if held.acquired:
            return _look(workdir, pending)[0]
        return dict.fromkeys(pending, held.owner)


def _look(
    workdir: Path, pending: set[str]
) -> tuple[dict[str, str], dict[Path, Mapping[str, Any]]]:
    """Parts the chunks that have pending trials: owners by trial, and the free ones."""
    owners: dict[str, str] = {}
    free: dict[Path, Mapping[str, Any]] = {}
    for folder in sorted((workdir / "chunks").glob("*/")):
        manifest = _manifest(folder)
        mine = pending.intersection(manifest["trials"])
        if not mine:
            continue
        with lock(folder / "lock") as held:
            if held.acquired:
                free[folder] = manifest
            else:
                owners |= dict.fromkeys(mine, held.owner)
    return owners, free


def claim(
    workdir: Path,
    trials: Sequence[Trial],
    size: Callable[[list[Trial]], int],
    waiting: Callable[[str], None] | None = None,
) -> Claimed:
    """Claims the next chunk: one left unfinished, else a new one.

    Args:
      workdir: the sweep's folder.
      trials: all trials of the sweep, in order.
      size: how many of a group's free trials may run together.
      waiting: told who holds the folder's lock while that takes long.

    Returns:
      The claim, if any, and how many trials are running elsewhere.
    """
    # Looking and claiming are one step for all processes on this folder.
    with lock(workdir / "lock", blocking=True, waiting=waiting):
        unfinished = [t for t in trials if not is_done(workdir, t)]
        owners, chunks = _look(workdir, {t.id for t in unfinished})
        # Again: those that another process finished in between are free and done.
        pending = {t.id: t for t in unfinished if not is_done(workdir, t)}
        by_id = {trial.id: trial for trial in trials}

        def answer(chosen: Claim | None) -> Claimed:
            busy = owners.keys() & pending.keys()
            return Claimed(chosen, len(busy), tuple(sorted(set(owners.values()))))

        for folder, manifest in chunks.items():
            ids = manifest["trials"]
            known = [by_id[i] for i in ids if i in by_id]
            # Else it is from an earlier form of the sweep: its trials are free again.
            whole = len(known) == len(ids) and len({group_key(t) for t in known}) == 1
            if whole and pending.keys() & set(ids) and not owners.keys() & set(ids):
                held = lock(folder / "lock")
                if held.acquired:
                    return answer(Claim(known, folder, held, manifest.get("run")))
                owners |= dict.fromkeys(ids, held.owner)
        free = [trial for trial in pending.values() if trial.id not in owners]
        for group in groups(free).values():
            chosen = group[: size(group)]
            return answer(_begin(workdir, chosen))
        return answer(None)


def _begin(workdir: Path, trials: list[Trial]) -> Claim:
    ids = [trial.id for trial in trials]
    folder = workdir / "chunks" / digest(ids)
    held = lock(folder / "lock")
    if not held.acquired:
        raise ConfigError(
            f"{folder} is held by {held.owner} without the lock of {workdir}: it runs"
            " another version of gnomon; wait for it, or use another --workdir"
        )
    try:
        clean(folder / "chunk.json")
        fresh = Claim(trials, folder, held, uuid.uuid4().hex)
        # Of a chunk whose manifest was damaged: nobody knows whose they are.
        if fresh.checkpoints.exists():
            shutil.rmtree(fresh.checkpoints)
        write_json(folder / "chunk.json", {"trials": ids, "run": fresh.run})
    except BaseException:
        held.release()
        raise
    return fresh


def finish(claimed: Claim, workdir: Path, results: Sequence[dict], keep: bool) -> None:
    """Writes a chunk's results, frees its checkpoints, and releases it."""
    for trial, result in zip(claimed.trials, results, strict=True):
        if not is_done(workdir, trial):
            done.write_result(trial_folder(workdir, trial.id), result)
    if not keep:
        shutil.rmtree(claimed.checkpoints, ignore_errors=True)
    claimed.lock.release()
