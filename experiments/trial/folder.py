"""The folder of a run: whose it is, and what it says before the first step."""

import contextlib
import sys
import uuid
from pathlib import Path
from typing import Any

from gnomon.experiments.config.fields import LEFT_OUT, SILENT
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.template import plain
from gnomon.experiments.config.trials import Trial
from gnomon.experiments.data import Dataset
from gnomon.experiments.data.origin import check_data, fingerprints
from gnomon.experiments.records.done import lost_rows, read_result
from gnomon.experiments.records.files import clean, read_object, write_json
from gnomon.experiments.records.locks import lock
from gnomon.experiments.records.runs import flatten
from gnomon.experiments.trial.checkpoint import Checkpoints


def same_run(workdir: Path, trial: Trial) -> None:
    """Refuses to go on in a folder that holds another run.

    Raises:
      ConfigError: names the first field that differs.
    """
    path = workdir / "config.json"
    if not path.exists():
        return
    saved = read_object(path, data=dict, model=dict, optimizer=dict, steps=int)
    # A field that an older gnomon did not have said nothing.
    old, new = flatten({**SILENT, **saved}), flatten(plain(trial.config))
    # A component's name first: its keywords differ because it does.
    fields = sorted(old.keys() | new.keys(), key=lambda f: (not f.endswith(".name"), f))
    for field in fields:
        if field.split(".")[0] not in LEFT_OUT and old.get(field) != new.get(field):
            raise ConfigError(
                f"--workdir={workdir} holds another run: config.{field} was"
                f" {old.get(field)!r} and is now {new.get(field)!r};"
                " use another --workdir, or the old value to go on"
            )


def same_data(
    workdir: Path, trial: Trial, dataset: Dataset
) -> dict[str, str | dict[str, str]]:
    """Refuses to go on with other data; returns what ``run.json`` is to hold.

    Raises:
      ConfigError: names the data set.
    """
    path = workdir / "run.json"
    data = fingerprints([(trial.config["data"], dataset)])
    if path.exists():
        old = read_object(path, run=str, trial=str, data=dict)
        check_data(workdir, old["data"], data)
        return old | {"trial": trial.id}
    # A lost file does not make the run another one.
    run = Checkpoints(workdir / "checkpoints").owner().get("run") or uuid.uuid4().hex
    return {"run": run, "trial": trial.id, "data": data}


def begin(
    trial: Trial,
    dataset: Dataset | None,
    workdir: Path,
    stack: contextlib.ExitStack,
) -> dict[str, Any]:
    """Takes the folder, and says in it what is trained; or finds the ``result``."""
    held = stack.enter_context(lock(workdir / "lock"))
    if not held.acquired:
        raise ConfigError(f"--workdir={workdir} is in use by {held.owner}")
    same_run(workdir, trial)
    if (result := read_result(workdir, trial.id)) is not None:
        print(f"{workdir} is done; its result is in result.json")
        # What `load_state` reads is there, and whole.
        if not (workdir / "config.json").exists():
            write_json(workdir / "config.json", trial.config)
        identity_in(workdir)
        if lost := lost_rows(workdir, result):
            print(lost, file=sys.stderr)
        return {"result": result}
    assert dataset is not None
    about = same_data(workdir, trial, dataset)
    for name, content in (("config", trial.config), ("run", about)):
        clean(workdir / f"{name}.json")
        write_json(workdir / f"{name}.json", content)
    clean(workdir / "result.json")
    return about


def shared(workdir: Path, run: str) -> str:
    """Refuses a folder in which another process has not written for this one."""
    if identity_in(workdir).get("run") != run:
        raise ConfigError(
            f"--workdir={workdir} is not the folder that process 0 has under this name;"
            " give one that all hosts share"
        )
    return run


def identity_in(workdir: Path) -> dict[str, Any]:
    """Whose the folder's checkpoints must be; empty where it does not say."""
    try:
        about = read_object(workdir / "run.json", run=str, trial=str)
    except FileNotFoundError:
        return {}
    return {"trial": about["trial"], "run": about["run"]}
