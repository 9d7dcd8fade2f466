"""Exactly once, nothing lost: whatever breaks a run, its rerun ends as if unbroken."""

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from disk import Disk, Killed
from points import difference
from runs import Eager, Late, Sweep, Train

from gnomon.experiments import train
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.console.errors import UserError
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.fleet import chunks, local
from gnomon.experiments.records import done, locks
from gnomon.experiments.records.files import read_json, write_json
from gnomon.experiments.records.locks import lock
from gnomon.experiments.records.metrics import MetricsWriter, read_metrics
from gnomon.experiments.records.runs import load_runs

HERE = Path(__file__).parent
pytestmark = pytest.mark.usefixtures("optax_promotion")


def _after_the_last_but_one_save(run, workdir: Path) -> int:
    """Runs it; the event at which to kill it: of a sweep, one of its chunks is done."""
    with Disk(workdir) as disk:
        run.run(workdir)
    saves = [
        event
        for event, (operation, path) in enumerate(disk.log, 1)
        if operation == "rename" and re.search(r"checkpoints/\d+\.tmp$", path)
    ]
    return saves[-2] + 6


class Broken:
    """A run, what it leaves when nothing breaks it, and where it was once killed."""

    def __init__(self, run, scratch: Path):
        self.run = run
        self.whole, self.half = scratch / "whole", scratch / "half"
        for folder in (self.whole, self.half):
            folder.mkdir()
        at = _after_the_last_but_one_save(run, self.whole)
        self.end = run.read(self.whole)
        with Disk(self.half, at, "kill"), pytest.raises(Killed):
            run.run(self.half)

    def copy(self, which: str, folder: Path) -> Path:
        return Path(shutil.copytree(getattr(self, which), folder / "copy"))

    def assert_ends_as_unbroken(self, workdir: Path) -> None:
        self.run.run(workdir)
        assert not difference(self.end, self.run.read(workdir))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, optax_promotion):
    return Broken(Train(Eager, checkpoint_every=1), tmp_path_factory.mktemp("train"))


@pytest.fixture(scope="module")
def swept(tmp_path_factory, optax_promotion):
    return Broken(Sweep(Late, keep=False), tmp_path_factory.mktemp("sweep"))


def _program(name: str, compiled: dict[str, str], *options: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(HERE / name), *options],
        env=os.environ | compiled,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("runs", ["train-late", "sweep-late"])
def test_broken_at_any_change_to_the_disk_a_rerun_ends_as_if_unbroken(runs, compiled):
    """A sample of the points; `points.py` without ``--sample`` runs them all."""
    status, output = _program("points.py", compiled, f"--runs={runs}", "--sample=24")
    assert status == 0, output
    assert json.loads(output.splitlines()[-1])[runs.split("-")[0]] == 24


def test_three_processes_train_each_trial_exactly_once(compiled):
    """Two rounds; ``processes.py --rounds 20 --trials 240`` trains for real."""
    options = "--rounds=2", "--trials=40", "--stand_in"
    status, output = _program("processes.py", compiled, *options)
    assert status == 0, output


HARM = {
    "empty": lambda text: b"",
    "garbage": lambda text: b"\x00\xff{]" + text[: len(text) // 2],
    "list": lambda text: b"[]\n",
    "object": lambda text: b"{}\n",
}


def _go_on_or_name(broken: Broken, workdir: Path, damaged: Path) -> None:
    """The rerun ends well, or says what to delete and ends well without it."""
    said = ""
    try:
        broken.run.run(workdir)
    except ConfigError as error:
        said = str(error)
    else:
        # Rows of a trial that is done: nothing is trained again unasked.
        result = damaged.with_name("result.json")
        if damaged.name == "metrics.jsonl" and result.exists():
            said = done.lost_rows(damaged.parent, read_json(result)) or ""
            damaged = result if said else damaged
    if said:
        assert f"delete {damaged}" in said or f"{damaged} is not valid" in said, said
        damaged.unlink()
    broken.assert_ends_as_unbroken(workdir)


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("which", ["whole", "half"])
@pytest.mark.parametrize("kind", ["trained", "swept"])
def test_any_damaged_file_is_made_anew_or_named(kind, which, harm, request, tmp_path):
    broken = request.getfixturevalue(kind)
    source = getattr(broken, which)
    paths = [p for p in source.rglob("*.json*") if "arrays" not in p.parts]
    if which == "whole":
        # Nothing is trained any more: `load_state` warns, and reads the one before.
        paths = [path for path in paths if path.name != "manifest.json"]
    # One of each kind of file: the trials of a sweep are alike.
    names = {(p.name, len(p.relative_to(source).parts)): p for p in sorted(paths)}
    assert len(names) >= 3
    for path in names.values():
        workdir = broken.copy(which, tmp_path)
        damaged = workdir / path.relative_to(source)
        text = HARM[harm](damaged.read_bytes())
        damaged.write_bytes(text)
        _go_on_or_name(broken, workdir, damaged)
        shutil.rmtree(workdir)


@pytest.mark.parametrize("name", ["config.json", "result.json"])
def test_a_file_of_another_trial_is_never_read_as_ones_own(swept, tmp_path, name):
    workdir = swept.copy("whole", tmp_path)
    one, other = (workdir / "trials" / t.id / name for t in swept.run.sweep.trials[:2])
    text = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(text)
    first = min(one, other)
    # What reads alone says so of the file.
    with pytest.raises(UserError, match=f"{first} is (not the config|the result) of"):
        load_runs(workdir)
    # What trains makes it anew, or says what to delete.
    for path in (one, other) if name == "result.json" else ():
        with pytest.raises(ConfigError, match=f"{path} is the result of"):
            swept.run.run(workdir)
        path.unlink()
    swept.assert_ends_as_unbroken(workdir)
    load_runs(workdir)


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.6, 0.95])
def test_rows_that_a_checkpoint_counts_on_are_trained_again(trained, tmp_path, keep):
    workdir = trained.copy("half", tmp_path)
    path = workdir / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    trained.assert_ends_as_unbroken(workdir)


def _newest(workdir: Path) -> Path:
    steps = [p for p in workdir.glob("checkpoints/*") if p.name.isdecimal()]
    return max(steps, key=lambda path: int(path.name))


@pytest.fixture(scope="module")
def others(trained, tmp_path_factory, optax_promotion):
    """The same config run elsewhere, and another trial of the same shapes."""
    again = tmp_path_factory.mktemp("again")
    trained.run.run(again)
    seed = Broken(
        Train(Eager, checkpoint_every=1, seed=1), tmp_path_factory.mktemp("o")
    )
    return {"another run": again, "another trial": seed.whole}


@pytest.mark.parametrize(
    "whence", ["renamed", "copied", "another run", "another trial"]
)
def test_a_checkpoint_from_elsewhere_is_refused(trained, others, tmp_path, whence):
    workdir = trained.copy("half", tmp_path)
    newest = _newest(workdir)
    later = newest.with_name(str(int(newest.name) + 1))
    if whence == "renamed":
        newest.rename(later)
    elif whence == "copied":
        shutil.copytree(newest, later)
    else:
        shutil.rmtree(newest)
        shutil.copytree(
            others[whence] / "checkpoints" / _newest(others[whence]).name, later
        )
        later.rename(later.with_name(_newest(others[whence]).name))
    bad = _newest(workdir)
    for look in (trained.run.run, trained.run.load):
        with pytest.raises(ConfigError, match=f"{bad}.* remove {bad} and run the same"):
            look(workdir)
    shutil.rmtree(bad)
    trained.assert_ends_as_unbroken(workdir)


def test_a_chunk_with_checkpoints_of_another_is_refused(swept, tmp_path):
    workdir = swept.copy("half", tmp_path)
    chunk = next(p.parent for p in workdir.glob("chunks/*/checkpoints"))
    about = read_json(chunk / "chunk.json")
    write_json(chunk / "chunk.json", about | {"run": "0" * 32})
    with pytest.raises(ConfigError, match="belongs elsewhere: its run is"):
        swept.run.run(workdir)
    shutil.rmtree(chunk / "checkpoints")
    swept.assert_ends_as_unbroken(workdir)


def test_without_a_readable_checkpoint_training_starts_anew_and_says_so(
    trained, tmp_path, caplog
):
    workdir = trained.copy("half", tmp_path)
    manifests = list(workdir.glob("checkpoints/*/manifest.json"))
    assert len(manifests) >= 2
    for path in manifests:
        path.write_text("")
    trained.assert_ends_as_unbroken(workdir)
    assert "training starts anew, from step 0" in caplog.text


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in [folder, *folder.rglob("*")]
    }


@pytest.mark.parametrize("kind", ["trained", "swept"])
def test_readers_change_nothing(kind, request, tmp_path):
    broken = request.getfixturevalue(kind)
    workdir = broken.copy("half", tmp_path)
    # What a writer is writing at this moment.
    for folder in {path.parent for path in workdir.rglob("*")}:
        (folder / "9.tmp").mkdir()
        (folder / ".x.json.0.tmp").write_text("{")
    before = _tree(workdir)
    if kind == "trained":
        broken.run.load(workdir)
        read_metrics(workdir)
        done.read_result(workdir)
    else:
        for run in load_runs(workdir):
            run.metrics()
        for trial in broken.run.sweep.trials:
            chunks.is_done(workdir, trial)
    assert _tree(workdir) == before


def test_a_state_is_read_again_and_again_beside_the_training(trained, tmp_path):
    """A save a step, with the threads that a run has: neither disturbs the other."""
    stop, read, failed = threading.Event(), [], []

    def look() -> None:
        while not stop.is_set():
            try:
                read.append(int(train.load_state(tmp_path).step))
            except FileNotFoundError:  # before the first save
                failed.append(len(read))

    run = Train(None, checkpoint_every=1, steps=30)
    reader = threading.Thread(target=look)
    with run._patched():
        reader.start()
        try:
            train.train(run.config, tmp_path)
        finally:
            stop.set()
            reader.join()
    assert read == sorted(read)
    assert len(set(read)) > 1
    assert not any(failed), "once there is a checkpoint there always is one"


def test_other_data_is_refused_by_name(trained, swept, tmp_path):
    for broken, name in ((trained, "run.json"), (swept, "sweep.json")):
        workdir = broken.copy("half", tmp_path / name)
        about = read_json(workdir / name)
        (key,) = about["data"]
        write_json(workdir / name, about | {"data": {key: "f" * 64}})
        with pytest.raises(ConfigError, match=r"fingerprint of wine was f{12} and is"):
            broken.run.run(workdir)
        write_json(workdir / name, about)
        broken.assert_ends_as_unbroken(workdir)


PROBES = {"free": True, "cheap_every": 2, "full_every": 0, "layers": ""}


@pytest.mark.parametrize("kind", [Train, Sweep])
@pytest.mark.parametrize("turned", ["on", "off"])
def test_probes_turned_on_or_off_on_the_way_change_no_result(kind, turned, tmp_path):
    options = {} if kind is Train else {"keep": False}
    plain, probed = kind(Eager, **options), kind(Eager, **options, dynamics=PROBES)
    first, second = (plain, probed) if turned == "on" else (probed, plain)
    whole, half = tmp_path / "whole", tmp_path / "half"
    for folder in (whole, half):
        folder.mkdir()
    at = _after_the_last_but_one_save(first, whole)
    with Disk(half, at, "kill"), pytest.raises(Killed):
        first.run(half)
    second.run(half)
    results = [
        {p.parent.name: read_json(p)["final"] for p in folder.rglob("result.json")}
        for folder in (whole, half)
    ]
    if kind is Train:
        results = [list(found.values()) for found in results]
    assert results[0] == results[1]


def test_a_trial_that_ends_between_the_look_and_the_lock_is_not_claimed(
    swept, tmp_path, monkeypatch
):
    """What another process may do at any moment: write results, let go of its lock."""
    trials = swept.run.sweep.trials
    for trial in trials:
        write_json(chunks.trial_folder(tmp_path, trial.id) / "config.json", {})
    other = chunks.claim(tmp_path, trials, lambda group: 2).claim
    look = chunks._look

    def slow(*arguments):
        done = {"status": "finished", "final": {}}
        results = [done | {"trial": t.id} for t in other.trials]
        chunks.finish(other, tmp_path, results, keep=False)
        return look(*arguments)

    monkeypatch.setattr(chunks, "_look", slow)
    claimed = chunks.claim(tmp_path, trials, lambda group: 2)
    assert claimed.busy == 0
    assert not set(claimed.claim.trials[0].id) & {trial.id for trial in other.trials}
    assert {t.id for t in claimed.claim.trials}.isdisjoint(t.id for t in other.trials)


def test_rows_of_a_trial_that_is_done_outlast_the_retraining_of_its_neighbour(
    swept, tmp_path
):
    """The lanes of a chunk train together; only those not done write."""
    workdir = swept.copy("whole", tmp_path)
    chunk = read_json(next(workdir.glob("chunks/*/chunk.json")))["trials"]
    (workdir / "trials" / chunk[0] / "result.json").unlink()
    kept = _tree(workdir / "trials" / chunk[1])
    with Disk(workdir, 40, "kill"), contextlib.suppress(Killed):
        swept.run.run(workdir)
    swept.assert_ends_as_unbroken(workdir)
    assert kept.items() <= _tree(workdir / "trials" / chunk[1]).items() | {
        item for item in kept.items() if item[0].endswith(chunk[1])
    }


def test_a_sweep_says_who_holds_it_and_since_when(swept, tmp_path, monkeypatch):
    workdir = swept.copy("half", tmp_path)
    owner = rf"process {os.getpid()} on \S+ since \d{{4}}-\d\d-\d\dT"
    stream = io.StringIO()
    folder = next(p.parent for p in workdir.glob("chunks/*/checkpoints"))
    held = lock(folder / "lock")
    monkeypatch.setattr(local.time, "sleep", lambda _: held.release())
    local.run_sweep(swept.run.sweep, workdir, stream=stream)
    assert re.search(rf"waiting for 2 trials, run by {owner}", stream.getvalue())


def test_ctrl_c_ends_the_wait_for_a_lock(swept, tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "WAIT_SECONDS", 0.05)
    stream = io.StringIO()
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    with lock(tmp_path / "lock"):
        timer.start()
        with pytest.raises(Interrupted, match="stopped while waiting for process"):
            local.run_sweep(swept.run.sweep, tmp_path, stream=stream)
    assert f"waiting for {tmp_path / 'lock'}, which is held by process" in (
        stream.getvalue()
    )


def test_a_row_that_the_disk_takes_in_part_is_written_whole_or_an_error(
    tmp_path, monkeypatch
):
    write = os.write
    with MetricsWriter(tmp_path, tensorboard=False) as writer:
        monkeypatch.setattr(os, "write", lambda fd, b: write(fd, b[:7]))
        writer.write(1, {"train_loss": 0.5})
        monkeypatch.undo()
    assert read_metrics(tmp_path) == [{"step": 1, "train_loss": 0.5}]
