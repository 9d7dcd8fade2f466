"""Joins the processes of a command, and ends them together."""

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax
from absl import flags

from gnomon.experiments.console.errors import UserError, explain
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.console.shown import one_line
from gnomon.experiments.hosts.board import Board, Gone, Service, place
from gnomon.experiments.hosts.crew import Agreed

NAMES = ("coordinator_address", "num_processes", "process_id")
"""What `jax.distributed.initialize` calls them."""
FAILED = "failed"  # the key under which the first process to fail says why
PATIENCE = 5.0  # seconds that process 0 stays, once it failed, for others to hear of it
_LOST = ("Gloo", "NCCL", "Connection", "heartbeat", "UNAVAILABLE")


def define(values: flags.FlagValues) -> None:
    """Defines the flags of a command that several processes may run together."""
    flags.DEFINE_bool(
        "distributed",
        False,
        "Train one trial in several processes, each of which runs this command.",
        flag_values=values,
    )
    found = "; found by itself on TPU, Slurm, MPI and Kubernetes."
    flags.DEFINE_string(
        NAMES[0], None, f"HOST:PORT of process 0{found}", flag_values=values
    )
    for name, about in ((NAMES[1], "How many processes"), (NAMES[2], "Which of them")):
        flags.DEFINE_integer(
            name, None, about + found, lower_bound=0, flag_values=values
        )


@contextlib.contextmanager
def joined(values: Any) -> Iterator[None]:
    """While entered, this process is one of those that run the command together.

    What all of them raise, `Agreed` or `Interrupted`, ends them as it ends one. When
    something else ends one of them, it says why to the others, and they end within two
    seconds. A process that is killed says nothing: the others end as soon as a
    collective notices, on CPUs at once, or when jax's coordination service has waited
    100 seconds for a sign of life; without process 0, jax ends the others itself.

    Args:
      values: the flags that `define` defined.
    """
    given = {name: getattr(values, name) for name in NAMES}
    given = {name: value for name, value in given.items() if value is not None}
    if not values.distributed:
        if given:
            raise UserError(f"--{next(iter(given))}: give --distributed with it")
        yield
        return
    _initialize(given)
    board, (index, count) = Service(), place()
    watch = Watch(board, index)
    try:
        yield
    except (Agreed, Interrupted):
        watch.close()
        jax.distributed.shutdown()
        raise
    except BaseException as error:
        watch.close()
        _fail(board, index, count, error)
    else:
        watch.close()
        jax.distributed.shutdown()


def _initialize(given: dict[str, Any]) -> None:
    # It would take SIGTERM, which ends a run with a checkpoint, for itself.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(**given)
    except (ValueError, RuntimeError) as error:
        missing = [f"--{name}" for name in NAMES if name not in given]
        fix = f"; give {', '.join(missing)}" if missing else ""
        raise UserError(f"--distributed: {error}{fix}") from error


class Watch:
    """Ends this process when another one says that it failed."""

    def __init__(self, board: Board, index: int) -> None:
        self._board, self._index = board, index
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(1.0):
            if said := self._board.look(FAILED):
                # From here: the main thread may be in a collective that never ends.
                _heard(self._board, self._index)
                sys.stdout.flush()
                line = one_line(f"error: {_ended(said)}")
                print(line, file=sys.stderr, flush=True)
                os._exit(2)

    def close(self) -> None:
        """Stops watching."""
        self._closed.set()
        self._thread.join()


def _ended(said: str) -> str:
    return f"stopped, for another process failed: {said}"


def _heard(board: Board, index: int) -> None:
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        board.post(f"{FAILED}/{index}", "heard")


def _fail(board: Board, index: int, count: int, error: BaseException) -> None:
    """Tells the others why this process ends; raises what it ends with."""
    said = board.look(FAILED)
    lost = isinstance(error, jax.errors.JaxRuntimeError) and any(
        word in str(error) for word in _LOST
    )
    if lost and said is not None:
        error = UserError(_ended(said))
    elif lost:
        error = UserError(
            f"another process of this run has ended ({one_line(error, 200)}); run the"
            " same command again in every process to go on"
        )
    line = explain(error)
    status = 1 if line is None else 2
    if isinstance(error, KeyboardInterrupt):
        line, status = "stopped", 130
    if said is None:
        why = line or f"{type(error).__name__}: {error}"
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            board.post(FAILED, f"process {index}: {one_line(why, 300)}")
    _heard(board, index)
    if index == 0:  # the board ends with it
        until = time.monotonic() + PATIENCE
        for other in range(1, count):
            with contextlib.suppress(Gone, jax.errors.JaxRuntimeError):
                board.read(f"{FAILED}/{other}", lambda: time.monotonic() > until)
    # jax waits, at the end of a process, for all the others: they will not come.
    atexit.register(os._exit, status)
    raise error
