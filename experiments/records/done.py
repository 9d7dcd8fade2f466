"""Whether a folder's trial is done: its result is there, whole, and its own."""

import functools
import os
from pathlib import Path
from typing import Any

from absl import logging

from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.records.files import clean, read_json, write_json
from gnomon.experiments.records.metrics import FILE as METRICS

FILE = "result.json"
STATUSES = ("finished", "diverged")


def read_result(folder: Path, trial: str | None = None) -> dict[str, Any] | None:
    """Reads the result of a trial's folder.

    Args:
      folder: the trial's folder.
      trial: the id that the result must name, if it names one.

    Returns:
      The result, or None for a trial that is not done. A file that is empty or
      garbage is no result: the trial is trained again, and its file replaced.

    Raises:
      ConfigError: the result of another trial, or one of a form that is not known;
        the message names the file to delete.
    """
    path = Path(folder, FILE)
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    found = _parsed(os.fspath(path), stat.st_ino, stat.st_mtime_ns, stat.st_size)
    if found is None:
        return None
    if found["status"] not in STATUSES:
        raise ConfigError(
            f"{path}: status is {found['status']!r}, not 'finished' or 'diverged';"
            " delete the file and run the same command again"
        )
    if trial is not None and found.get("trial", trial) != trial:
        raise ConfigError(
            f"{path} is the result of trial {found['trial']}, not of {trial};"
            " delete the file and run the same command again"
        )
    return dict(found)


# Asked after each chunk of every trial: a file that has not changed is parsed once.
@functools.lru_cache(maxsize=1 << 14)
def _parsed(path: str, inode: int, modified: int, size: int) -> dict[str, Any] | None:
    try:
        found = read_json(path)
    except FileNotFoundError:
        return None
    except ConfigError as error:
        logging.warning("%s; it counts as not done", error)
        return None
    status = found.get("status") if isinstance(found, dict) else None
    # One of another status is refused by its reader, whatever else it lacks.
    if isinstance(status, str) and (
        status not in STATUSES or isinstance(found.get("final"), dict)
    ):
        return found
    logging.warning("%s is not a result; it counts as not done", path)
    return None


def write_result(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    """Writes a trial's result, once its metrics are synced; with the lock that owns it.

    Args:
      folder: the trial's folder.
      result: what the trial came to.

    Returns:
      What is written: the result, and the length of the metrics that belong to it.
    """
    rows, path = Path(folder, METRICS), Path(folder, FILE)
    size = rows.stat().st_size if rows.exists() else 0
    whole = result | {"metrics": {"bytes": size}}
    clean(path)
    write_json(path, whole)
    return whole


def lost_rows(folder: Path, result: dict[str, Any]) -> str | None:
    """Says when a done trial's metrics are shorter than they were at its end."""
    wanted = (result.get("metrics") or {}).get("bytes")
    path = Path(folder, METRICS)
    size = path.stat().st_size if path.exists() else 0
    if wanted is None or size >= wanted:
        return None
    return (
        f"{path} has lost rows: {size} of its {wanted} bytes are there; delete"
        f" {Path(folder, FILE)} and run the same command again to train it anew"
    )
