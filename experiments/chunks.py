"""Who runs what: chunks of trials, claimed so that no trial ever runs twice.

A chunk is some trials of one group that run as lanes of one program. Its folder
``chunks/<id>/`` holds ``chunk.json`` (the trials, in lane order), a lock held by the
process that runs it, and its checkpoints. The lock is the kernel's (`flock`): a
killed process frees it, and the next to look goes on from the chunk's checkpoint.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from gnomon.experiments.files import Lock, lock, read_json, write_json
from gnomon.experiments.trials import Trial, digest, groups


class Claim(NamedTuple):
    """A chunk that this process alone may run, until it releases the lock."""

    trials: list[Trial]
    folder: Path
    lock: Lock

    @property
    def checkpoints(self) -> Path:
        """Where the chunk's checkpoints are."""
        return self.folder / "checkpoints"


class Claimed(NamedTuple):
    """The answer to `claim`.

    Attributes:
      claim: the chunk to run, or None when no trial is free.
      busy: trials that other processes are running.
    """

    claim: Claim | None
    busy: int


def trial_folder(workdir: Path, trial_id: str) -> Path:
    """A trial's own folder."""
    return workdir / "trials" / trial_id


def is_done(workdir: Path, trial: Trial) -> bool:
    """Whether a trial's result is written."""
    return (trial_folder(workdir, trial.id) / "result.json").exists()


def claim(
    workdir: Path, trials: Sequence[Trial], size: Callable[[list[Trial]], int]
) -> Claimed:
    """Claims the next chunk: one left unfinished, else a new one.

    Args:
      workdir: the sweep's folder.
      trials: all trials of the sweep, in order.
      size: how many of a group's free trials may run together.

    Returns:
      The claim, if any, and how many trials are running elsewhere.
    """
    # Looking and claiming are one step for all processes on this folder.
    with lock(workdir / "lock", blocking=True):
        pending = {t.id: t for t in trials if not is_done(workdir, t)}
        busy: set[str] = set()
        for manifest in sorted((workdir / "chunks").glob("*/chunk.json")):
            ids = read_json(manifest)["trials"]
            if not any(i in pending for i in ids):
                continue
            held = lock(manifest.parent / "lock")
            if not held.acquired:
                busy.update(i for i in ids if i in pending)
            elif all(t in {t.id for t in trials} for t in ids):
                by_id = {t.id: t for t in trials}
                return Claimed(
                    Claim([by_id[i] for i in ids], manifest.parent, held), len(busy)
                )
            else:  # from an earlier form of the sweep: its trials are free again
                held.release()
        free = [trial for trial in pending.values() if trial.id not in busy]
        for group in groups(free).values():
            chosen = group[: size(group)]
            ids = [trial.id for trial in chosen]
            folder = workdir / "chunks" / digest(ids)
            held = lock(folder / "lock")
            write_json(folder / "chunk.json", {"trials": ids})
            return Claimed(Claim(chosen, folder, held), len(busy))
        return Claimed(None, len(busy))


def finish(claimed: Claim, workdir: Path, results: Sequence[dict], keep: bool) -> None:
    """Writes a chunk's results, frees its checkpoints, and releases it."""
    for trial, result in zip(claimed.trials, results, strict=True):
        path = trial_folder(workdir, trial.id) / "result.json"
        if not path.exists():
            write_json(path, result)
    if not keep:
        shutil.rmtree(claimed.checkpoints, ignore_errors=True)
    claimed.lock.release()
