"""Locks between processes that die with their owner.

By hand: `filelock` takes the same `flock`, and does not say who holds it.
"""

import contextlib
import dataclasses
import datetime
import fcntl
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from gnomon.experiments.records.files import PathLike, make_folder

WAIT_SECONDS = 1.0  # of silence before a wait for a lock is said


@dataclasses.dataclass
class Lock:
    """A held or refused lock, as `lock` returns it; a context manager.

    Attributes:
      path: The lock file.
      acquired: Whether this handle holds the lock now.
      owner: Who holds it, for a message, as "process 7 on host since TIME": this
        process when `acquired`, else the last that wrote its name into the file.
    """

    path: Path
    acquired: bool
    owner: str
    _descriptor: int | None

    def release(self) -> None:
        """Lets go of the lock; a second call does nothing."""
        self.acquired = False
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "Lock":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def lock(
    path: PathLike,
    *,
    blocking: bool = False,
    waiting: Callable[[str], None] | None = None,
) -> Lock:
    """Takes an exclusive lock between processes, which ends with its owner.

    It is `flock` on an open file: the kernel drops it when the process ends in any
    way, `kill -9` included, so there is never a stale lock to judge by its age. The
    file itself stays: removing it would let one process lock the removed file while
    another locks its successor.

    Args:
      path: the lock file; created, with its folders, when missing.
      blocking: whether to wait for the lock. By default the call returns at once
        and `acquired` says whether the lock was free.
      waiting: while it waits for longer than a second, called about once a second
        with the owner's name; what it raises ends the wait.

    Returns:
      A `Lock`, to use in a `with` statement or to `release`.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with lock(folder + "/lock") as first, lock(folder + "/lock") as second:
      ...     print(first.acquired, second.acquired)
      True False
      >>> with lock(folder + "/lock") as third:
      ...     print(third.acquired)
      True
    """
    target = Path(path)
    make_folder(target.parent)
    descriptor = os.open(target, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        if not _acquire(descriptor, blocking, waiting):
            owner = _owner(descriptor)
            os.close(descriptor)
            return Lock(target, False, owner, None)
        since = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        owner = f"process {os.getpid()} on {socket.gethostname()} since {since}"
        # The name is for people: a full disk, which cannot hold it, holds the lock.
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{owner}\n".encode(), 0)
        return Lock(target, True, owner, descriptor)
    except BaseException:
        os.close(descriptor)
        raise


def _acquire(
    descriptor: int, blocking: bool, waiting: Callable[[str], None] | None
) -> bool:
    begun, pause = time.monotonic(), 0.001
    while True:
        # The kernel's own wait cannot tell anyone whom it waits for.
        ask = blocking and waiting is None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if ask else fcntl.LOCK_NB))
            return True
        except BlockingIOError:
            if not blocking:
                return False
        if waiting is not None and time.monotonic() - begun > WAIT_SECONDS:
            waiting(_owner(descriptor))
            begun = time.monotonic()
        time.sleep(pause)
        pause = min(2 * pause, 0.005)  # for it is free but for moments


def _owner(descriptor: int) -> str:
    owner = os.pread(descriptor, 1024, 0).decode(errors="replace").strip()
    return owner or "another process"
