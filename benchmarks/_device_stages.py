"""Runs what may crash, hang or run out of memory, and keeps what was measured.

A section is a list of items. They run in a process of their own, one after another,
which tells on a file what it begins and what came of it. Where that process dies, or
says nothing for too long, the item it was at has failed, and another process goes on
behind it. After an error by which a device is lost to its process, it ends itself. So
it does when the process that started it is gone: the next run is not to share the
device with it.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]
LOST = ("CUDA_ERROR", "illegal address", "misaligned", "launch failed")
OUT_OF_TIME = "out of time"
POLL_SECONDS = 0.1
WATCH_SECONDS = 1.0  # rarely: what is timed runs beside it
KILL_SECONDS = 10
LOG_CHARACTERS = 20_000  # kept of what a section printed where something failed


def _taken_for_alive() -> None:
    """Of a section that uses no device."""


class Section(NamedTuple):
    """Items that are measured alike.

    Attributes:
      name: of the section.
      seconds: its share of the time; what it leaves is the next one's.
      stall: the longest that an item may say nothing.
      items: of the settings, the names of its items, in order of worth.
      run: of an item and the settings, its rows.
      alive: asks the device for something after an error; raises where it is lost.
    """

    name: str
    seconds: float
    stall: float
    items: Callable[[Mapping[str, Any]], Sequence[str]]
    run: Callable[[str, Mapping[str, Any]], list[Row]]
    alive: Callable[[], Any] = _taken_for_alive


def work(section: Section, settings: Mapping[str, Any], path: Path) -> None:
    """The process of a section: runs the items that the file knows nothing of.

    Args:
      section: the section.
      settings: of the run.
      path: the file, lines of JSON.
    """

    def tell(**line: Any) -> None:
        with path.open("a") as file:
            file.write(json.dumps(line, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())

    _end_with(os.getppid())
    seen = {line.get("item") for line in told(path)}
    items = list(section.items(settings))
    tell(items=items)
    for item in items:
        if item in seen:
            continue
        tell(item=item)
        try:
            rows = section.run(item, settings)
        except Exception as problem:
            tell(item=item, failed=said(problem))
            traceback.print_exc()
            if any(sign in str(problem) for sign in LOST) or _lost(section):
                return
        else:
            tell(item=item, rows=rows)
    tell(done=True)


def _lost(section: Section) -> bool:
    """Whether the device answers no more; a compiler's error leaves it as it was."""
    try:
        section.alive()
    except Exception:
        traceback.print_exc()
        return True
    return False


def _end_with(parent: int) -> None:
    """Ends this process and what it started when its parent is gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
        # A process that shares its group with others ends alone.
        if os.getpgrp() == os.getpid():
            os.killpg(os.getpid(), signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def said(problem: BaseException) -> str:
    """An error in one line."""
    lines = str(problem).strip().splitlines() or [""]
    return f"{type(problem).__name__}: {lines[0]}"[:300]


def told(path: Path) -> Iterator[Row]:
    """What a file says; a line that a kill cut short is left out."""
    if not path.exists():
        return
    for line in path.read_text().splitlines():
        try:
            yield json.loads(line)
        except ValueError:
            continue


class Came(NamedTuple):
    """What came of a section: rows, what failed and why, what was not reached.

    ``log`` is the end of what it printed, where something failed.
    """

    rows: list[Row]
    failed: dict[str, str]
    left: list[str]
    seconds: float
    log: str = ""


def outcome(path: Path, seconds: float = 0.0) -> Came:
    """What a file says of its section."""
    rows: list[Row] = []
    failed: dict[str, str] = {}
    items: list[str] = []
    seen: set[str] = set()
    for line in told(path):
        items = line.get("items", items)
        if "item" in line:
            seen.add(line["item"])
        rows += line.get("rows", [])
        if "failed" in line:
            failed[line["item"]] = line["failed"]
    return Came(rows, failed, [item for item in items if item not in seen], seconds)


def drive(
    command: Sequence[str],
    path: Path,
    *,
    seconds: float,
    stall: float,
    log: Path,
    clock: Callable[[], float] = time.monotonic,
) -> Came:
    """Starts a section's process, again after a death, until all is done or time is up.

    Args:
      command: of the process, which calls `work` with the same path.
      path: the file.
      seconds: the time there is.
      stall: the longest that the file may stay as it is.
      log: a file for what the process prints.

    Returns:
      What came of it.
    """
    began = clock()
    if seconds <= 0:
        return Came([], {"start": OUT_OF_TIME}, [], 0.0)
    silent = 0  # processes in a row that did not begin an item
    while clock() - began < seconds and silent < 2:
        size = _size(path)
        with log.open("a") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, start_new_session=True
            )
            reason = _wait(process, path, began + seconds, stall, clock)
        lines = list(told(path))
        if any(line.get("done") for line in lines):
            break
        begun = [line["item"] for line in lines if "item" in line]
        at = begun[-1] if len(begun) % 2 else None
        if at is not None and reason == "time":
            _tell(path, item=at, failed=OUT_OF_TIME)
        elif at is not None:
            _tell(path, item=at, failed=reason)
        silent = 0 if _size(path) > size and begun else silent + 1
        if reason == "time":
            break
    came = outcome(path, clock() - began)
    printed = log.read_text(errors="replace") if log.exists() else ""
    if silent and not came.rows and not came.failed:
        came.failed["start"] = _last_line(printed)
    if any(reason != OUT_OF_TIME for reason in came.failed.values()):
        came = came._replace(log=printed[-LOG_CHARACTERS:])
    return came


def _tell(path: Path, **line: Any) -> None:
    with path.open("a") as file:
        file.write("\n" + json.dumps(line) + "\n")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _last_line(printed: str) -> str:
    lines = printed.strip().splitlines()
    return lines[-1][:300] if lines else "it ended without a word"


def _wait(
    process: subprocess.Popen,
    path: Path,
    end: float,
    stall: float,
    clock: Callable[[], float],
) -> str:
    """Waits for a process; kills it, and says why, where it takes too long."""
    size, heard = _size(path), clock()
    while process.poll() is None:
        time.sleep(POLL_SECONDS)
        if (now := _size(path)) != size:
            size, heard = now, clock()
        late = "time" if clock() > end else ""
        if not late and clock() - heard > stall:
            late = f"it said nothing for {stall:.0f} s"
        if late:
            _kill(process)
            return late
    return f"the process died: {_exit(process.returncode)}"


def _kill(process: subprocess.Popen) -> None:
    """Ends a process and what it started: it leads a session of its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    # One that hangs in a driver ends when that lets go of it, or never.
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILL_SECONDS)


def _exit(code: int) -> str:
    return signal.Signals(-code).name if code < 0 else f"exit status {code}"


def command_of(script: Path, section: str, path: Path, *flags: str) -> list[str]:
    """The command of a section's process."""
    words = [sys.executable, str(script), f"--work={section}", f"--rows={path}"]
    return [*words, *flags]
