"""A progress line for long work: rewritten on a terminal, plain lines elsewhere.

By hand: tqdm writes carriage returns into a log, or nothing at all, has one counter
where a sweep has two, and averages its rate over calls and not over a time.
"""

import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO


def format_duration(seconds: float) -> str:
    """Writes a duration in its two largest units.

    Example:
      >>> [format_duration(s) for s in (0.4, 59.6, 125, 7384, 200000, float("nan"))]
      ['0s', '1m00s', '2m05s', '2h03m', '2d08h', '?']
    """
    if not math.isfinite(seconds):
        return "?"
    whole = round(max(seconds, 0.0))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    # From here on the smaller unit is rounded too, and may carry into the larger.
    minutes = round(whole / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    hours = round(whole / 3600)
    return f"{hours // 24}d{hours % 24:02d}h"


def format_count(count: float) -> str:
    """Writes a count in three digits.

    Example:
      >>> [format_count(n) for n in (0.25, 7, 999, 1234, 56_789, 999_600, 2.5e9)]
      ['0.25', '7', '999', '1.23k', '56.8k', '1M', '2.5G']
    """
    size = 0
    while abs(count) >= 999.5 and size < 4:
        count /= 1000
        size += 1
    return f"{float(f'{count:.3g}'):g}{['', 'k', 'M', 'G', 'T'][size]}"


def format_line(
    step: int,
    total: int,
    *,
    loss: float | None = None,
    step_rate: float | None = None,
    unit_rate: float | None = None,
    unit: str = "tokens",
    trials: tuple[int, int] | None = None,
    remaining: float | None = None,
) -> str:
    """Writes the state of a run in one line; what is `None` is left out.

    Args:
      step: steps taken.
      total: steps in all.
      loss: the training loss.
      step_rate: steps a second.
      unit_rate: units of data a second.
      unit: what those units are.
      trials: trials done, and trials in all.
      remaining: seconds until the end.

    Example:
      >>> format_line(300, 1200, loss=2.34567, step_rate=58.1, unit_rate=59500,
      ...             trials=(4, 60), remaining=95)
      'trials 4/60  step 300/1,200 (25%)  loss 2.3457  58.1 steps/s  59.5k tokens/s  ETA 1m35s'
    """  # noqa: E501
    parts = []
    if trials is not None:
        parts.append(f"trials {trials[0]}/{trials[1]}")
    percent = 100 * step // total if total else 100
    parts.append(f"step {step:,}/{total:,} ({percent}%)")
    if loss is not None:
        parts.append(f"loss {loss:.4f}")
    if step_rate is not None:
        parts.append(f"{format_count(step_rate)} steps/s")
    if unit_rate is not None:
        parts.append(f"{format_count(unit_rate)} {unit}/s")
    if remaining is not None:
        parts.append(f"ETA {format_duration(remaining)}")
    return "  ".join(parts)


class Rate:
    r"""Events a second, over a window that fades exponentially.

    With counts $n_i$ in times $\Delta t_i$, the rate is
    $\sum_i w_i n_i / \sum_i w_i \Delta t_i$, where $w_i$ decays as
    $e^{-\text{age}/\tau}$. The same weights above and below make it unbiased from
    the first event on, and a slow first step (compilation) fades away.

    Args:
      window: $\tau$ in seconds.

    Example:
      >>> rate = Rate(window=10.0)
      >>> rate.add(1, 30.0)  # compiling
      >>> for _ in range(100):
      ...     rate.add(5, 1.0)
      >>> round(rate.value, 3)
      4.999
    """

    def __init__(self, window: float):
        self._window = window
        self._count = 0.0
        self._seconds = 0.0

    def add(self, count: float, seconds: float) -> None:
        """Counts `count` events in the `seconds` since the last call."""
        fade = math.exp(-seconds / self._window)
        self._count = self._count * fade + count
        self._seconds = self._seconds * fade + seconds

    @property
    def value(self) -> float | None:
        """Events a second; `None` while no time has passed."""
        return self._count / self._seconds if self._seconds > 0 else None


class Progress:
    """Shows how far a run is and how fast it goes.

    On a terminal one line is rewritten in place, at most five times a second.
    Anywhere else, such as a log file, a whole line is written every `interval`
    seconds. Closing writes the last state and ends the line.

    Args:
      total: steps in all.
      start: steps that an earlier process took; they count as done, not as speed.
      units_per_step: units of data in a step; 0 leaves the units' rate out.
      unit: what those units are.
      trials: trials in all; 0 leaves trials out.
      interval: seconds between lines; by default 0.2 on a terminal, else 10.
      window: seconds over which rates are averaged.
      stream: where to write; by default standard error.
      clock: the time in seconds; a test gives its own.

    Example:
      >>> import io
      >>> log, times = io.StringIO(), iter([0.0, 5.0, 10.0])
      >>> with Progress(40, units_per_step=64, stream=log, clock=lambda: next(times)) as p:
      ...     p.update(10, loss=3.0)
      ...     p.update(20, loss=2.5)
      >>> print(log.getvalue(), end="")
      step 20/40 (50%)  loss 2.5000  2 steps/s  128 tokens/s  ETA 10s
    """  # noqa: E501

    def __init__(
        self,
        total: int,
        *,
        start: int = 0,
        units_per_step: int = 0,
        unit: str = "tokens",
        trials: int = 0,
        interval: float | None = None,
        window: float = 15.0,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._total, self._step = total, start
        self._units_per_step, self._unit = units_per_step, unit
        self._trials, self._done = trials, 0
        self._loss: float | None = None
        self._stream = sys.stderr if stream is None else stream
        # A dumb terminal (an editor's shell) cannot return to the line's start.
        terminal = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._terminal = terminal
        self._interval = (0.2 if terminal else 10.0) if interval is None else interval
        self._clock = clock
        self._rate = Rate(window)
        self._time = self._shown = clock()
        self._stale = self._open = self._closed = False

    def update(
        self, step: int, *, loss: float | None = None, trials: int | None = None
    ) -> None:
        """Takes note of where the run is, and shows it when it is time to.

        Args:
          step: steps taken, those before `start` included; less than before where a
            run goes back.
          loss: the newest training loss; `None` keeps the one before.
          trials: trials done; `None` keeps the number before.
        """
        now = self._clock()
        self._rate.add(max(step - self._step, 0), now - self._time)
        self._step, self._time, self._stale = step, now, True
        self._loss = self._loss if loss is None else loss
        self._done = self._done if trials is None else trials
        if now - self._shown >= self._interval:
            self._shown = now
            self._show()

    def message(self, text: str) -> None:
        """Writes a line of its own above the progress line."""
        self._stream.write(f"\r\x1b[K{text}\n" if self._open else f"{text}\n")
        if self._open:
            self._show()
        self._stream.flush()

    def close(self) -> None:
        """Shows the last state and ends the line; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        if self._stale:
            self._show()
        if self._open:
            self._stream.write("\n")
            self._stream.flush()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def line(self) -> str:
        """The line as it would be shown now."""
        rate = self._rate.value
        return format_line(
            self._step,
            self._total,
            loss=self._loss,
            step_rate=rate,
            unit_rate=rate * self._units_per_step
            if rate and self._units_per_step
            else None,
            unit=self._unit,
            trials=(self._done, self._trials) if self._trials else None,
            remaining=(self._total - self._step) / rate if rate else None,
        )

    def _show(self) -> None:
        self._stale = False
        if not self._terminal:
            self._stream.write(self.line() + "\n")
        else:
            # A line that wraps could not be rewritten.
            columns = shutil.get_terminal_size().columns - 1
            self._stream.write("\r\x1b[K" + self.line()[:columns])
            self._open = True
        self._stream.flush()
