"""Commands as they are started: help, what is not installed, a disk that fails."""

import configparser
import errno
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gnomon.experiments import leaderboard, report, sweep, train
from gnomon.experiments.console.errors import EXTRAS, explain

COMMANDS = {
    "train": train.run,
    "sweep": sweep.run,
    "report": report.run,
    "leaderboard": leaderboard.run,
}
ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_flag(command, capsys):
    for word in ("--help", "-h", "--helpfull"):
        COMMANDS[command]([command, word])
        text = capsys.readouterr().out
        source = importlib.import_module(f"gnomon.experiments.{command}").__file__
        cli = ROOT / "experiments" / "config" / "cli.py"
        sources = [Path(source)] + [cli] * (command in ("train", "sweep"))
        defined = re.findall(
            r"^ +(?:string|switch|whole|number|choice)\(\s*\"([\w.]+)\"",
            "".join(path.read_text() for path in sources),
            re.M,
        )
        assert len(defined) >= 2
        for name in defined:
            assert f"--{name}: " in text


def test_a_stop_while_planning_is_one_line(workplace, refused):
    path = workplace / "small.py"
    path.write_text(path.read_text().replace("return [{}]", "raise KeyboardInterrupt"))
    words = ["--config=small.py", "--workdir=w"]
    assert "stopped" in refused("sweep", words, status=130)


def test_a_deleted_current_folder_is_one_line(workplace, monkeypatch, refused):
    (workplace / "gone").mkdir()
    monkeypatch.chdir(workplace / "gone")
    (workplace / "gone").rmdir()
    for command in COMMANDS:
        line = refused(command, [f"--config={workplace}/small.py"])
        assert "the current folder has been deleted" in line


@pytest.mark.parametrize(
    ("package", "said"),
    [("matplotlib", "the report's pictures"), ("tensorboardX", "config.tensorboard")],
)
def test_an_extra_that_the_end_would_need(package, said, monkeypatch, refused):
    monkeypatch.setitem(sys.modules, package, None)
    words = ["--config=small.py", "--workdir=w", "--config.tensorboard=true"]
    line = refused("sweep", words)
    assert said in line
    assert "pip install 'gnomon[experiments]'" in line


def test_every_extra_is_known_by_its_modules():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    for extra in set(EXTRAS.values()):
        # But those of another extra, which the extra may include.
        wanted = [n for n in extras[extra].split("\n") if not re.match("$|#|gnomon", n)]
        names = {re.split(r"[<>=]", name)[0].replace("-", "_") for name in wanted}
        known = {name for name, of in EXTRAS.items() if of == extra}
        known = {{"absl": "absl_py", "PIL": "pillow"}.get(n, n) for n in known}
        assert known == names


def started(code, tmp_path, *words, **changes):
    """Runs ``code`` as a console script would be, in the folder of the test."""
    script = tmp_path / "bin" / "gnomon-train"
    script.parent.mkdir()
    script.write_text(code)
    return subprocess.run(
        [sys.executable, script, *words],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=os.environ | changes,
    )


def test_a_console_script_imports_from_the_current_folder(workplace):
    (workplace / "mine.py").write_text("")
    text = (workplace / "small.py").read_text()
    changed = text.replace(
        "return config", "config.task = 'mine.tosk'\n    return config"
    )
    (workplace / "small.py").write_text(changed)
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split("\n")[1:]
    for line in scripts:
        module, _, function = line.partition(" = ")[2].partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    ended = started(
        "from gnomon.experiments.train import run\nrun()",
        workplace,
        "--config=small.py",
        "--workdir=w",
    )
    assert ended.returncode == 2, ended.stderr
    assert "'mine' has no 'tosk'" in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_an_extra_that_the_command_itself_needs(workplace):
    stub = workplace / "stub" / "flax.py"
    stub.parent.mkdir()
    stub.write_text("raise ModuleNotFoundError('no flax', name='flax')")
    ended = started(
        "import sys; sys.path.insert(0, 'stub')\n"
        "from gnomon.experiments.train import run\nrun()",
        workplace,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr == (
        "error: the package 'flax' is not installed:"
        " pip install 'gnomon[experiments]'\n"
    )


def test_a_full_disk_is_one_line(workplace, compiled):
    """Here a limit on the size of files: every write beyond it fails."""
    ended = started(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20480, 20480))\n"
        "from gnomon.experiments.train import run\nrun()",
        workplace,
        "--config=small.py",
        "--workdir=w",
        **compiled | {"JAX_ENABLE_COMPILATION_CACHE": "0"},
    )
    assert ended.returncode == 2, ended.stderr
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("step")]
    assert len(lines) == 1, ended.stderr
    assert "File too large; raise the limit" in lines[0]
    assert not (workplace / "w" / "result.json").exists()


@pytest.mark.parametrize("name", ["ENOSPC", "EDQUOT", "EROFS", "EIO", "EACCES"])
def test_a_disk_that_fails_names_the_path_and_the_fix(
    name, folder_of, monkeypatch, refused
):
    folder_of([{"label": "A", "optimizer": {"learning_rate": 0.1}}])
    number = getattr(errno, name)

    def fsync(descriptor):
        raise OSError(number, os.strerror(number), "study/report.json")

    monkeypatch.setattr(os, "fsync", fsync)
    line = refused("report", ["--workdir=study"])
    assert "study/report.json" in line
    assert ";" in line


def test_a_fault_of_gnomon_shows_its_trace(workplace, monkeypatch):
    def broken(self, *arguments):
        return {}["key"]

    code = compile("def broken(*args): return {}['key']", train.__file__, "exec")
    exec(code, space := {})
    monkeypatch.setattr(train, "train", space["broken"])
    with pytest.raises(KeyError) as caught:
        train.run(["train", "--config=small.py", "--workdir=w"])
    assert explain(caught.value.with_traceback(None)) is None
