"""Metrics of one run: a JSON object a line, TensorBoard and trackers beside it."""

import json
import math
import os
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np

from gnomon.experiments.records.files import (
    PathLike,
    clean,
    from_json,
    jsonable,
    make_folder,
    sync_folder,
    write_text,
)

FILE = "metrics.jsonl"
_EVENTS = "events.out.tfevents.*"


class Position(NamedTuple):
    """How far a file of metrics is written.

    Attributes:
      bytes: The length of its rows.
      crc32: Their CRC-32.
    """

    bytes: int
    crc32: int


class MetricsWriter:
    """Appends rows to `metrics.jsonl`, and goes on where a killed run left off.

    A row is written in one call to the system and is then safe from `kill -9`; a
    kill inside that call can tear the last line and no other. `sync` makes the rows
    safe from a power failure too: a checkpoint or a result that says that rows exist
    must be written after it. When a run resumes from a checkpoint, the rows after the
    checkpoint are dropped, for they will be written again: the file of a run that was
    killed equals that of one that was not. One process at a time may have a writer.

    Args:
      folder: the run's folder; created when missing.
      resume_step: the step of the checkpoint that the run goes on from. `None`, the
        default, starts anew: what an earlier run left in the folder is dropped.
      tensorboard: whether to write TensorBoard events too (by tensorboardX). The
        events of dropped rows are hidden by TensorBoard's own purge.
      trackers: settings of the trackers that rows are sent to as well, by name
        (`gnomon.experiments.records.trackers`).
      config: the run's config, for the trackers.
      hold: whether trackers are sent no row before `release`: a tracker takes back
        nothing, and a run may go back behind its rows.

    Example:
      >>> import tempfile
      >>> folder = tempfile.mkdtemp()
      >>> with MetricsWriter(folder, tensorboard=False) as writer:
      ...     writer.write(10, {"train_loss": 2.5})
      ...     writer.write(20, {"train_loss": float("nan")})
      >>> print(Path(folder, "metrics.jsonl").read_text(), end="")
      {"step": 10, "train_loss": 2.5}
      {"step": 20, "train_loss": "NaN"}
    """

    def __init__(
        self,
        folder: PathLike,
        *,
        resume_step: int | None = None,
        tensorboard: bool = True,
        trackers: Mapping[str, Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
        hold: bool = False,
    ):
        self._folder = Path(folder)
        make_folder(self._folder)
        path = self._folder / FILE
        clean(path)
        kept = _drop_after(path, resume_step) if path.exists() else b""
        self._position = Position(len(kept), zlib.crc32(kept))
        self._events = self._open_events(resume_step) if tensorboard else None
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._descriptor: int | None = os.open(path, flags, 0o666)
        self._named = False
        self._trackers = self._open_trackers(trackers, config, resume_step is None)
        self._hold = hold
        self._held: list[tuple[int, dict[str, float]]] = []

    @property
    def position(self) -> Position:
        """How far the file is written."""
        return self._position

    def sync(self) -> None:
        """Brings the rows written so far to the disk, and the file's name."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)
        if not self._named:
            sync_folder(self._folder)
            self._named = True

    def write(self, step: int, values: Mapping[str, Any]) -> None:
        """Appends one row.

        Args:
          step: the number of steps taken.
          values: numbers by name, as Python, NumPy or JAX scalars; non-finite ones
            are written as ``"NaN"``, ``"Infinity"``, ``"-Infinity"``. Other JSON values
            are kept from TensorBoard.

        Raises:
          ValueError: If the writer is closed.
        """
        if self._descriptor is None:
            raise ValueError(f"the metrics of {self._folder} are closed")
        row = jsonable({"step": step, **values})
        line = json.dumps(row, allow_nan=False) + "\n"
        text = line.encode()
        written = os.write(self._descriptor, text)
        while written < len(text):  # a full disk takes a part, and then refuses
            written += os.write(self._descriptor, text[written:])
        size, crc = self._position
        self._position = Position(size + len(text), zlib.crc32(text, crc))
        if self._events is None and not self._trackers:
            return
        # TensorBoard marks a number that is not finite, or is not there.
        numbers = {
            name: float("nan") if value is None else value
            for name, value in from_json(row).items()
            if name != "step" and (value is None or isinstance(value, int | float))
        }
        if self._events is not None:
            for name, number in numbers.items():
                self._events.add_scalar(name, number, step)
        if self._trackers:
            self._held.append((step, numbers))
        if not self._hold:
            self.release()

    def release(self) -> None:
        """Sends trackers the rows that were held back."""
        held, self._held = self._held, []
        for step, numbers in held:
            for tracker in self._trackers:
                tracker.log(step, numbers)

    def close(self) -> None:
        """Closes the files; a second call does nothing."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._events is not None:
            self._events.close()
            self._events = None
        for tracker in self._trackers:
            tracker.close()

    def __enter__(self) -> "MetricsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _open_trackers(
        self,
        trackers: Mapping[str, Mapping[str, Any]] | None,
        config: Mapping[str, Any] | None,
        fresh: bool,
    ) -> list[Any]:
        if not trackers:
            return []
        # Here, so that a run without them does not pay for the import.
        from gnomon.experiments.records.trackers import Tracker

        return [
            Tracker(name, self._folder, settings, config or {}, fresh)
            for name, settings in trackers.items()
        ]

    def _open_events(self, resume_step: int | None) -> Any:
        # Here, so that a sweep without TensorBoard does not pay for the import.
        from tensorboardX import SummaryWriter

        if resume_step is None:
            for stale in self._folder.glob(_EVENTS):
                stale.unlink()
            return SummaryWriter(os.fspath(self._folder))
        # A file has the second in its name, and is emptied by another of that name: a
        # run that goes back from a spike may open two in one second.
        number = len(list(self._folder.glob(_EVENTS)))
        return SummaryWriter(
            os.fspath(self._folder),
            purge_step=resume_step + 1,
            filename_suffix=f".{number:06d}",
        )


def read_metrics(
    path: PathLike, *, strict: bool = True, tail: int = 0
) -> list[dict[str, Any]]:
    """Reads the rows of a `metrics.jsonl`, without a torn last line.

    All that reads metrics reads them by this.

    Args:
      path: the file, or the folder that holds it.
      strict: whether another line than the last must be a row too. False passes over
        what is none.
      tail: read no more than so many bytes, from the end; 0 reads all.

    Returns:
      The rows in the order of writing. A line is a row once its newline is there.

    Raises:
      FileNotFoundError: If there is no such file.
      ValueError: If it is strict and a line is broken. The message names it.
    """
    path = Path(path)
    if path.is_dir():
        path = path / FILE
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - tail) if tail else 0)
        *lines, _ = file.read().split(b"\n")
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = from_json(json.loads(line))
            if not isinstance(row, dict):
                raise ValueError(f"a {type(row).__name__}, not an object")
        except ValueError as error:
            if strict:
                said = f"{path}, line {number} is not JSON: {error}; mend the line"
                raise ValueError(said) from error
            continue
        rows.append(row)
    return rows


def columns_of(rows: Iterable[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Rows of metrics as a float64 array a name, NaN where a row lacks it.

    Rows are sorted by ``step``, and one without a finite step is left out. Of a step
    that was written twice, by a run that was cut off and resumed, the later row counts.

    >>> columns_of([{"step": 2, "loss": 1.0}, {"step": 1, "rate": 0.5}])
    {'step': array([1., 2.]), 'rate': array([0.5, nan]), 'loss': array([nan,  1.])}
    """
    steps: dict[float, dict[str, Any]] = {}
    for row in rows:
        if math.isfinite(step := number(row.get("step"))):
            steps[step] = steps.get(step, {}) | dict(row)
    kept = [steps[step] for step in sorted(steps)]
    names = {"step": None} | {name: None for row in kept for name in row}
    return {
        name: np.array([number(row.get(name)) for row in kept], dtype=np.float64)
        for name in names
    }


def is_number(value: Any) -> bool:
    """Whether a value of a row is a number, and no switch."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: Any) -> float:
    """A value of a row as a float; NaN for what is no number."""
    if not is_number(value):
        return math.nan
    try:
        return float(value)
    except OverflowError:
        return math.copysign(math.inf, value)


def missing_rows(folder: PathLike, position: Position) -> str | None:
    """Says when a folder's metrics do not begin with the rows that were there before.

    Args:
      folder: the run's folder.
      position: what `MetricsWriter.position` was.
    """
    path = Path(folder, FILE)
    text = b""
    if path.exists():
        with open(path, "rb") as file:
            text = file.read(position.bytes)
    if len(text) < position.bytes:
        return f"{path} has lost rows: {len(text)} of {position.bytes} bytes are there"
    if zlib.crc32(text) != position.crc32:
        return f"the rows of {path} have changed"
    return None


def _drop_after(path: Path, step: int | None) -> bytes:
    content = path.read_bytes()
    kept: list[bytes] = []
    for line in content.split(b"\n")[:-1] if step is not None else []:
        # Past a row that is broken or of a later step nothing is a row: a power
        # failure may leave anything after what was synced.
        try:
            late = json.loads(line)["step"] > step
        except (ValueError, KeyError, TypeError):
            break
        if late:
            break
        kept.append(line + b"\n")
    text = b"".join(kept)
    # Syncing a file costs as much as many steps of a small model: only when needed.
    if text != content:
        write_text(path, text.decode())
    return text
