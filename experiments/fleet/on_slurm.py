"""Runs a sweep as Slurm jobs: ``... gnomon.experiments.sweep --engine=slurm``.

submitit hands in an array of jobs, one a chunk, at most ``--slurm_jobs``. What a job
does is in `gnomon.experiments.fleet.remote`; it reads its trials from the sweep's
folder, and its script and logs are in a folder of its own, ``slurm/<job>/``.

A job that is out of time (``--slurm_minutes``) or preempted is told by a signal. It
writes its checkpoint and is queued again, as often as it takes. One that dies is handed
in again, up to ``--retries`` times. Ctrl-C, given to the process that waits, cancels
the jobs. If that process is killed they go on, and the same command attaches to them:
what runs is known by its locks, what waits for a machine from Slurm's accounting
(``sacct``).

``--slurm_cluster=local`` runs the jobs on this machine, to try it.
"""

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import jax

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import Trial
from gnomon.experiments.console.errors import explain
from gnomon.experiments.console.interrupt import Interrupted, Interruption
from gnomon.experiments.fleet import remote
from gnomon.experiments.fleet.chunks import is_done, running, trial_folder
from gnomon.experiments.fleet.local import POLL_SECONDS
from gnomon.experiments.fleet.preparation import Sweep, tell
from gnomon.experiments.records.files import read_object

FOLDER = "slurm"
ASK_SECONDS = 60.0  # between two questions to Slurm, which serves a whole cluster
STOP_SECONDS = 60.0  # for the jobs to write their checkpoints
WARNING_SECONDS = 120  # before a job's time is over
TIMES_OUT = 10_000  # a job that is out of time has done nothing wrong
_QUEUED = ("PENDING", "REQUEUED", "READY")


def connect(cluster: str) -> Any:
    """Finds Slurm; returns the module `submitit`.

    Call it before JAX is used: this process then leaves accelerators to the jobs.

    Args:
      cluster: ``slurm``, or ``local`` for jobs on this machine.

    Raises:
      ConfigError: submitit is not installed, or there is no Slurm.
    """
    if cluster == "slurm" and shutil.which("srun") is None:
        raise ConfigError(
            "--engine=slurm: no srun on this machine; run the command where jobs are"
            " handed in, or try it by --slurm_cluster=local"
        )
    try:
        import submitit
    except ModuleNotFoundError as error:
        raise ConfigError(
            "--engine=slurm needs the package submitit: pip install 'gnomon[slurm]'"
        ) from error
    jax.config.update("jax_platforms", "cpu")
    return submitit


def options(words: Sequence[str]) -> dict[str, str | bool]:
    """The options of sbatch that ``--slurm_extra`` gives.

    Raises:
      ConfigError: one that is not of the form ``name=value``.

    >>> options(["qos=high", "exclusive"])
    {'qos': 'high', 'exclusive': True}
    """
    found: dict[str, str | bool] = {}
    for word in words:
        name, equals, value = word.lstrip("-").partition("=")
        if not name or (equals and not value):
            raise ConfigError(f"--slurm_extra={word}: write it as qos=high")
        found[name] = value if equals else True
    return found


def listed(folder: Path) -> list[Trial]:
    """The trials that a sweep's folder lists and that are not done."""
    ids = read_object(folder / "sweep.json", trials=list)["trials"]
    trials = [
        Trial(i, dict(read_object(trial_folder(folder, i) / "config.json")))
        for i in ids
    ]
    return [trial for trial in trials if not is_done(folder, trial)]


class Work:
    """What a job runs, from the start each time that it leaves the queue.

    Args:
      folder: the sweep's.
      *how: further arguments of `gnomon.experiments.fleet.remote.work`.
    """

    def __init__(self, folder: Path, *how: Any) -> None:
        self._folder, self._how = folder, how

    def __call__(self) -> str:
        """Runs chunks until none is free; returns why it could not, "" if it could."""
        import submitit

        over = getattr(signal, f"SIG{submitit.JobEnvironment.USR_SIG}")
        queue_again = signal.getsignal(over)  # submitit's, by way of `checkpoint`
        interruption = Interruption([over])
        try:
            trials = listed(self._folder)
            remote.work(trials, self._folder, *self._how, interruption=interruption)
        except Interrupted:
            if interruption.number == over and callable(queue_again):
                # Where Slurm does not let it, whoever waits hands in another.
                with contextlib.suppress(OSError, subprocess.SubprocessError):
                    queue_again(over, None)
            while interruption.number == signal.SIGTERM:
                signal.pause()  # it is queued again, if it is, by not ending itself
        except Exception as error:
            if (line := explain(error)) is None:
                raise
            return line
        return ""

    def checkpoint(self) -> Any:
        """What is queued again: the same, since chunks have their own checkpoints."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


class Jobs:
    """The jobs of a sweep; as `gnomon.experiments.fleet.remote.Workers`.

    Args:
      executor: of submitit.
      kind: its class of jobs.
      most: jobs at most.
      retries: how often a job that dies is handed in again.
      max_lanes: as of `Sweep`.
      *how: as of `Work`.
    """

    def __init__(
        self,
        executor: Any,
        kind: Any,
        most: int,
        retries: int,
        max_lanes: int,
        *how: Any,
    ) -> None:
        self._executor, self._kind = executor, kind
        self._most, self._retries = most, retries
        self._max_lanes, self._how = max_lanes, how
        self._jobs: dict[Any, int] = {}  # each with the deaths that it may survive
        self._left: Sequence[Trial] = ()
        self._folder = Path()
        self._asked = 0.0
        self._attached = False

    def __enter__(self) -> "Jobs":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, left: Sequence[Trial], folder: Path) -> None:
        """Hands in as many as there are chunks that no process runs."""
        if not self._attached:
            self._attach(folder)
        self._left, self._folder = left, folder
        owners = running(folder, left)
        free = [trial for trial in left if trial.id not in owners]
        waiting = sum(job.state in _QUEUED for job in self._jobs)
        chunks = remote.chunks_of(free, self._max_lanes) - waiting
        self._submit([self._retries] * min(chunks, self._most - len(self._jobs)))

    def alive(self) -> bool:
        """Waits a moment; hands in again what died."""
        if not self._jobs:
            return False
        time.sleep(POLL_SECONDS)
        ask = time.monotonic() - self._asked > ASK_SECONDS
        if ask:
            self._asked = time.monotonic()
        died = []
        for job, retries in list(self._jobs.items()):
            # One question is about all of them.
            ask_now, ask = ask, False
            if not job.done(force_check=ask_now):
                continue
            del self._jobs[job]
            if not job.paths.result_pickle.exists():
                died.append((job, retries))
            elif refusal := job.result():
                raise ConfigError(refusal)
        open_ones = not all(is_done(self._folder, trial) for trial in self._left)
        if not open_ones:
            # Whoever still trains is about to end; the others have nothing to wait for.
            self._cancel(job for job in self._jobs if job.state in _QUEUED)
        elif died:
            for job, retries in died:
                if not retries:
                    raise ConfigError(
                        f"job {job.job_id} and those before it died; {job.paths.stderr}"
                        " may say of what; --retries allows more"
                    )
            self._submit([retries - 1 for _, retries in died])
        return bool(self._jobs)

    def stop(self) -> None:
        """Cancels them, and waits until those that train have let go."""
        self._cancel(list(self._jobs))
        end = time.monotonic() + STOP_SECONDS
        while any(not job.done() for job in self._jobs) and time.monotonic() < end:
            if not running(self._folder, self._left):
                break
            time.sleep(POLL_SECONDS / 10)
        self._jobs = {}

    def _submit(self, retries: Sequence[int]) -> None:
        if not retries:
            return
        work = Work(self._folder, self._max_lanes, *self._how)
        jobs = self._executor.submit_array([work] * len(retries))
        self._jobs |= dict(zip(jobs, retries, strict=True))
        numbers = ", ".join(job.job_id for job in jobs)
        tell(f"handed in {len(jobs)} jobs: {numbers}; logs in {self._folder / FOLDER}")

    def _attach(self, folder: Path) -> None:
        """Finds the jobs of an earlier command that Slurm knows to run or to wait."""
        self._attached = True
        for path in sorted((folder / FOLDER).glob("*/*_submitted.pkl")):
            job = self._kind(self._executor.folder, path.parent.name)
            ended = job.paths.result_pickle.exists()
            if not ended and job.state in (*_QUEUED, "RUNNING"):
                self._jobs[job] = self._retries
        if self._jobs:
            names = ", ".join(job.job_id for job in self._jobs)
            tell(f"attached to jobs of an earlier command: {names}")

    def _cancel(self, jobs: Any) -> None:
        for job in list(jobs):
            with contextlib.suppress(OSError, subprocess.SubprocessError):
                job.cancel(check=False)


def run_sweep(
    sweep: Sweep,
    workdir: Path,
    keep_checkpoints: bool = False,
    *,
    cpus: float = 1,
    gpus: float = 0,
    memory: float = 0,
    retries: int = 3,
    cluster: str = "slurm",
    partition: str | None = None,
    minutes: int = 60,
    jobs: int = 256,
    extra: Mapping[str, str | bool] | None = None,
) -> None:
    """Runs what is left of a sweep as jobs; other processes may be doing the same.

    Args:
      sweep: the sweep, after `gnomon.experiments.sweep.prepare`.
      workdir: its folder, the same on all machines.
      keep_checkpoints: keep each chunk's last checkpoints after its results.
      cpus: CPUs of a job.
      gpus: GPUs of a job.
      memory: of a job, in GiB; 0: what the cluster gives.
      retries: how often a job that dies is handed in again.
      cluster: ``slurm``, or ``local`` for jobs on this machine.
      partition: where they run; None: the cluster's default.
      minutes: of a job, until it is queued again.
      jobs: how many there may be.
      extra: further options of sbatch.

    Raises:
      ConfigError: Slurm or a job refuses, or a job dies too often.
      Interrupted: stopped on request; the jobs are cancelled, after checkpoints.
    """
    if cpus != int(cpus) or gpus != int(gpus) or cpus < 1:
        raise ConfigError(f"--cpus={cpus:g} --gpus={gpus:g}: Slurm gives whole ones")
    submitit = connect(cluster)
    executor = submitit.AutoExecutor(
        workdir.resolve() / FOLDER / "%j", cluster, slurm_max_num_timeout=TIMES_OUT
    )
    try:
        executor.update_parameters(
            name="gnomon",
            timeout_min=minutes,
            cpus_per_task=int(cpus),
            gpus_per_node=int(gpus) or None,
            mem_gb=memory or None,
            slurm_partition=partition,
            slurm_signal_delay_s=min(WARNING_SECONDS, 30 * minutes),
            slurm_array_parallelism=jobs,
            slurm_additional_parameters=dict(extra or {}),
        )
        kind = submitit.SlurmJob if cluster == "slurm" else submitit.LocalJob
        how = keep_checkpoints, int(cpus)
        with Jobs(executor, kind, jobs, retries, sweep.max_lanes, *how) as mine:
            remote.watch(mine, sweep, workdir)
    except submitit.core.utils.FailedSubmissionError as error:
        raise ConfigError(f"--engine=slurm: sbatch refuses: {error}") from error
