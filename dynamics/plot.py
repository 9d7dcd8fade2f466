"""Makes the cockpit page of a run.

    python -m gnomon.dynamics.plot --workdir=DIR [--trial=ID] [--output=PATH]

reads ``DIR/metrics.jsonl``, or ``DIR/trials/ID/metrics.jsonl`` of a sweep, and writes
``cockpit.html`` beside it.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from gnomon.dynamics.cockpit import cockpit

METRICS = "metrics.jsonl"
LISTED = 8  # trials that an error names before it stops


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a ``metrics.jsonl``.

    Args:
      path: the file. A last line that a kill left torn is dropped.

    Raises:
      ValueError: a line is no JSON object, or there is none.
    """
    rows: list[dict[str, Any]] = []
    text = path.read_text("utf-8", errors="replace")  # what is no text is no row
    for number, line in enumerate(text.splitlines(), start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if isinstance(row, dict):
            rows.append(row)
        elif number <= text.count("\n"):
            raise ValueError(f"{path}, line {number}: not a JSON object; mend the line")
    if not rows:
        raise ValueError(f"{path} has no rows yet; wait until the run has logged one")
    return rows


def run_folder(workdir: Path, trial: str | None = None) -> Path:
    """The folder of the run that is meant.

    Args:
      workdir: the folder of a run, or of a sweep.
      trial: the id of one of the sweep's trials.

    Raises:
      ValueError: there is no such run; the message says what is there.
    """
    found = sorted(path.parent.name for path in workdir.glob(f"trials/*/{METRICS}"))
    if trial is not None and trial in found:
        return workdir / "trials" / trial
    if trial is None and (workdir / METRICS).exists():
        return workdir
    if not found:
        wrong = "there is no such folder" if not workdir.is_dir() else f"no {METRICS}"
        if trial is not None:
            wrong = f"no trial {trial!r} with {METRICS}"
        raise ValueError(
            f"--workdir={workdir}: {wrong}; give the folder of a run, which holds "
            f"{METRICS}, or that of a sweep with --trial=ID"
        )
    labels = [_label(workdir / "trials" / name) for name in found[:LISTED]]
    listed = [
        f"{name} ({label})" if label else name
        for name, label in zip(found, labels, strict=False)
    ]
    if len(found) > LISTED:
        listed.append(f"and {len(found) - LISTED} more")
    asked = "" if trial is None else f"no trial {trial!r}; "
    raise ValueError(
        f"--workdir={workdir} is a sweep: {asked}choose one by --trial=ID of "
        + "; ".join(listed)
    )


def _label(run: Path) -> str:
    """What a run's config says of it; nothing where it has none."""
    try:
        config = json.loads((run / "config.json").read_text())
        name, rate = config["optimizer"]["name"], config["optimizer"]["learning_rate"]
        words: Iterable[str] = (
            config.get("label") or name,
            config["model"]["name"].rpartition(".")[2],
            f"learning rate {rate:g}",
            f"seed {config['seed']}",
        )
        return " · ".join(words)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def write(path: Path, text: str) -> None:
    """Writes a file at once: whoever reads it sees the old text or the new.

    >>> folder = tempfile.mkdtemp()
    >>> write(Path(folder, "page.html"), "<p>")
    >>> Path(folder, "page.html").read_text(), os.listdir(folder)
    ('<p>', ['page.html'])
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


class _Parser(argparse.ArgumentParser):
    """A parser whose every error is one line, as those of the other commands are."""

    def error(self, message: str) -> NoReturn:
        """Ends with status 2."""
        line = " ".join(message.split())
        line = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
        self.exit(2, f"error: {line}\n")


def _path(text: str) -> Path:
    """A path that was given: an empty one would be the current folder."""
    if not text:
        raise argparse.ArgumentTypeError("empty; give a path")
    return Path(text)


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page of a run; a wrong argument ends with status 2."""
    parser = _Parser(
        allow_abbrev=False,
        prog="python -m gnomon.dynamics.plot",
        description=(__doc__ or "").split("\n")[0],
    )
    parser.add_argument("--workdir", type=_path, required=True, help="a run or a sweep")
    parser.add_argument("--trial", help="the id of one trial of a sweep")
    parser.add_argument("--output", type=_path, help="default: cockpit.html of the run")
    options = parser.parse_args(argv)
    try:
        folder = run_folder(options.workdir, options.trial)
        output = options.output or folder / "cockpit.html"
        if not output.parent.is_dir():
            raise ValueError(f"--output={output}: make its folder first")
        rows = read_rows(folder / METRICS)
        title = _label(folder) or folder.resolve().name
        write(output, cockpit(rows, title=title))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(output)


if __name__ == "__main__":
    main()
