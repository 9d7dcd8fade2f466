"""Makes the cockpit page of a run.

python -m gnomon.experiments.cockpit --workdir=DIR [--trial=ID] [--output=PATH]
"""

import functools
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from gnomon.experiments.cockpit.page import cockpit
from gnomon.experiments.console import command
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.records.files import read_object, write_text
from gnomon.experiments.records.metrics import FILE, read_metrics

LISTED = 8  # trials that an error names before it stops


def run_folder(workdir: Path, trial: str | None = None) -> Path:
    """The folder of the run that is meant.

    Args:
      workdir: the folder of a run, or of a sweep.
      trial: the id of one of the sweep's trials.

    Raises:
      UserError: there is no such run; the message says what is there.
    """
    found = sorted(path.parent.name for path in workdir.glob(f"trials/*/{FILE}"))
    if trial in found:
        return workdir / "trials" / trial
    if trial is None and (workdir / FILE).exists():
        return workdir
    wrong = "" if trial is None else f"no trial {trial!r}; "
    if not found:
        wrong += f"no {FILE}" if workdir.is_dir() else "there is no such folder"
        raise UserError(
            f"--workdir={workdir}: {wrong}; give the folder of a run, which holds "
            f"{FILE}, or that of a sweep with --trial=ID"
        )
    labels = {name: _label(workdir / "trials" / name) for name in found[:LISTED]}
    listed = [f"{name} ({label})".removesuffix(" ()") for name, label in labels.items()]
    if len(found) > LISTED:
        listed.append(f"and {len(found) - LISTED} more")
    raise UserError(
        f"--workdir={workdir} is a sweep: {wrong}choose one by --trial=ID of "
        + "; ".join(listed)
    )


def _label(run: Path) -> str:
    """What a run's config says of it; nothing where it has none."""
    try:
        config = read_object(run / "config.json")
        name, rate = config["optimizer"]["name"], config["optimizer"]["learning_rate"]
        words = (
            config.get("label") or name,
            config["model"]["name"].rpartition(".")[2],
            f"learning rate {rate:g}",
            f"seed {config['seed']}",
        )
        return " · ".join(words)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return ""


def main(values: flags.FlagValues) -> None:
    """Writes the page of a run."""
    if not values.workdir:
        raise UserError("--workdir: empty; give the folder of a run")
    if values.output == "":
        raise UserError("--output: empty; give the path of the page")
    folder = run_folder(Path(values.workdir), values.trial)
    output = Path(values.output or folder / "cockpit.html")
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: make its folder first")
    try:
        rows = read_metrics(folder / FILE)
    except ValueError as error:
        raise UserError(str(error)) from error
    if not rows:
        raise UserError(
            f"{folder / FILE} has no rows yet; wait until the run has logged one"
        )
    write_text(output, cockpit(rows, title=_label(folder) or folder.resolve().name))
    print(output)


def define(values: flags.FlagValues) -> None:
    """Defines the flags."""
    string = functools.partial(flags.DEFINE_string, flag_values=values)
    string("workdir", None, "A run's or a sweep's folder.")
    string("trial", None, "The id of one trial of a sweep.")
    string("output", None, "The page's path; by default cockpit.html of the run.")


def run(argv: Sequence[str] | None = None) -> None:
    """The console command."""
    command.run(main, define, __doc__, argv)
