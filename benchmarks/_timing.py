"""Timing side by side: interleaved samples, and a record of where they were taken."""

import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from gnomon.experiments.console.table import table as lined_up
from gnomon.experiments.records.software import versions


def interleave(
    cases: Mapping[str, Callable[[], Any]],
    *,
    repeats: int = 7,
    warmup: int = 1,
    calls: int = 1,
    before: Callable[[], Any] | None = None,
) -> dict[str, list[float]]:
    """Times cases in turn, so that what disturbs one disturbs the others too.

    The order is reversed from round to round: no case always follows the same one.

    Args:
      cases: a function of no arguments for each name; all the arrays in what it returns
        are waited for.
      repeats: rounds that count.
      warmup: rounds before those.
      calls: calls that make one sample, begun one after another and waited for
        together, so that an accelerator is never idle between them.
      before: called before each round, outside the timing.

    Returns:
      Seconds a call of every counted sample, in the order of the rounds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for number in range(warmup + repeats):
        if before is not None:
            before()
        for name in names:
            begin = time.perf_counter()
            for _ in range(calls):
                results = cases[name]()
            jax.block_until_ready(results)
            if number >= warmup:
                seconds[name].append((time.perf_counter() - begin) / calls)
        names.reverse()
    return seconds


def ratios(seconds: Sequence[float], baseline: Sequence[float]) -> dict[str, float]:
    """How many times slower, by the fastest and by the median call.

    The fastest call is the one least disturbed by other work on the machine.

    Args:
      seconds: samples of the method.
      baseline: samples of what it is compared with, from the same rounds.

    Returns:
      The ratio of the minima and the ratio of the medians.
    """
    return {
        "ratio": min(seconds) / min(baseline),
        "median_ratio": statistics.median(seconds) / statistics.median(baseline),
    }


def environment() -> dict[str, Any]:
    """The device, the versions, the date, the command, and how busy the machine is."""
    device = jax.devices()[0]
    return {
        "command": shlex.join(["python", *sys.argv]),
        "date": time.strftime("%Y-%m-%d"),
        "device": f"{device.platform}: {device.device_kind}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],
        "versions": versions(),
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> str:
    """Lines up rows under a header.

    Args:
      rows: one mapping a line; what a row lacks, or is None, is left blank.
      columns: the format of each column by its name, such as ``".2f"``.

    Returns:
      The text, its first line the names of the columns.
    """

    def cell(row, name):
        value = row.get(name)
        return "" if value is None else format(value, columns[name])

    lines = [[cell(row, name) for name in columns] for row in rows]
    return lined_up([list(columns), *lines], words=0)


def write(path: Path, record: Mapping[str, Any]) -> None:
    """Writes a record as JSON, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n")
