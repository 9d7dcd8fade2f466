"""What a person can get wrong: one line, status 2, nothing trained, nothing written."""

import configparser
import importlib
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gnomon.experiments import leaderboard, report, sweep, train
from gnomon.experiments.data import __main__ as data
from gnomon.experiments.errors import EXTRAS, explain

COMMANDS = {
    "train": train.run,
    "sweep": sweep.run,
    "report": report.run,
    "leaderboard": leaderboard.run,
}
ROOT = Path(__file__).parents[2]

FILE = """
from gnomon.experiments.config import defaults

def get_config():
    config = defaults()
    config.update({tiny!r})
    return config

def sweep():
    return [{{}}]
"""
# Optimizers as a person may write them, each wrong in a way of its own.
MINE = """
import jax.numpy as jnp
import optax

def make(update):
    def init(params):
        return {"count": jnp.zeros((), jnp.int32)}
    return optax.GradientTransformation(init, update)

def dtype(learning_rate):
    return make(lambda g, s, p=None: (g, {"count": s["count"] * 1.0}))

def shape(learning_rate):
    return make(lambda g, s, p=None: (g, {"count": s["count"] + jnp.ones((2,), int)}))

def form(learning_rate):
    return make(lambda g, s, p=None: (g, {"count": s["count"], "more": s["count"]}))

def number(learning_rate):
    return make(lambda g, s, p=None: ({k: jnp.zeros(()) for k in g}, s))

def nothing(learning_rate):
    return {"learning_rate": 1.0}

def fails(learning_rate):
    raise RuntimeError("not\\ntoday")
"""


@pytest.fixture
def workplace(tmp_path, tiny, monkeypatch):
    """The current folder, with a small config, its sweep and some optimizers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("gnomon.experiments.cli.configure_jax", lambda: None)
    (tmp_path / "small.py").write_text(FILE.format(tiny=fields_of(tiny)))
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "a_file").write_text("text")
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    return tmp_path


def fields_of(tiny):
    config = tiny()
    config.pop("report")
    return config


def files(folder):
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {p: p.stat().st_mtime_ns for p in paths if "pycache" not in str(p)}


def refused(command, words, workplace, capsys, status=2):
    """Runs a command that must be refused; returns its line."""
    before = files(workplace)
    run = COMMANDS.get(command)
    with pytest.raises(SystemExit) as ended:
        run([command, *words]) if run else data.run(words)
    line = capsys.readouterr().err
    assert ended.value.code == status, line
    assert re.fullmatch(r"[^\n]+\n", line), f"{line.count(chr(10))} lines: {line}"
    assert files(workplace) == before, "something was written"
    return line


# A flag, and what the line must name.
FLAGS = [
    ("--config=none.py", "none.py: no such config file"),
    ("--config=", "--config: missing"),
    ("--config=.", "no such config file"),
    ("--config=a_file", "a_file: not a Python file"),
    ("--config=small.py:width=3", "takes no argument"),
    ("--config=quickstart.py:widht=3", "did you mean 'width'"),
    ("--config=quickstart.py:width=wide", "needs int"),
    ("--config.stepz=1", "--config.stepz=1: config has no field 'stepz'; did you mean"),
    ("--config.steps=0", "config.steps=0: needs an integer above 0"),
    ("--config.steps=many", "--config.steps=many"),
    ("--config.steps=1.5", "--config.steps=1.5"),
    ("--config.seed=4294967296", "config.seed=4294967296: needs an integer >= 0"),
    ("--config.seed=-1", "config.seed=-1"),
    ("--config.batch=100000000", "config.batch=100000000: the data has only"),
    ("--config.tensorboard=perhaps", "--config.tensorboard=perhaps"),
    ("--config.model=3", "a section; name a field of it: depth, name"),
    ("--config.model.width.depth=3", "config.model.width has no fields"),
    ("--config.model.name=gnomon.models.TransformerLN", "did you mean 'TransformerLM'"),
    ("--config.data.name=digitz", "did you mean 'digits'"),
    ("--config.data.length=0", "config.data.length: 0"),
    ("--config.task=no.such", "config.task.name: cannot import 'no.such'"),
    ("--config.optimizer.nesterov=True", "has no field 'nesterov'"),
    ("--config.optimizer.learning_rate=nan", "learning_rate=nan"),
    ("--config.optimizer.learning_rate=-1", "learning_rate=-1.0: needs a number above"),
    ("--config.optimizer.b1=1.5", "config.optimizer.b1=1.5: needs a number"),
    ("--config.report.metric=validation_los", "did you mean 'validation_loss'"),
    ("--config.tuning.field=learning_rat", "did you mean 'learning_rate'"),
    ("--config.tuning.field=learning_rate.b1", "override tuning.field beside each"),
    ("--config.tuning.field=name", "is 'optax.adamw', not a number"),
    ("--workdir=", "--workdir: missing"),
    ("--workdir=a_file", "a_file is a file; give a folder"),
    ("--workdir=a_file/below", "a_file is a file; give a folder"),
    ("--workdr=x", "Did you mean: workdir"),
    ("stray", "unexpected arguments: stray"),
]
SWEEP_FLAGS = [
    ("--max_lanes=-1", "--max_lanes=-1"),
    ("--max_lanes=all", "--max_lanes=all"),
    ("--engine=slurm", "--engine=slurm"),
    ("--config.report.baseline=AdamX", "config.report.baseline='AdamX': no trial has"),
]
CASES = [(c, flag, said) for c in ("train", "sweep") for flag, said in FLAGS] + [
    ("sweep", flag, said) for flag, said in SWEEP_FLAGS
]


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize(("command", "flag", "said"), CASES)
def test_a_wrong_flag(command, flag, said, workplace, capsys):
    words = ["--config=small.py", "--workdir=w", flag]
    assert said in refused(command, words, workplace, capsys)


# What replaces a function of the config file, and what the line must name.
SOURCES = [
    ("def get_config(:", "wrong.py:1: SyntaxError"),
    ("x = 'a\n", "wrong.py:1: SyntaxError"),
    ("\tx = 1\n  y = 2", "wrong.py:"),
    ("x = 1\0", "wrong.py"),
    ("x = undefined", "wrong.py:1: NameError"),
    ("import no_such_package", "wrong.py:1: the package 'no_such_package' is not"),
    ("import matplotlib.nothing", "wrong.py:1"),
    ("x = open('absent')", "wrong.py:1: absent: No such file"),
    ("def get_config():\n  return None", "get_config() returned a NoneType"),
    ("def get_config():\n  return 1 / 0", "wrong.py:2: ZeroDivisionError"),
    ("from small import get_config\nget_config = 3", "has no get_config()"),
    ("y = 1", "has no get_config()"),
    ("{}def sweep():\n  return None", "sweep() returned a NoneType"),
    ("{}def sweep():\n  return 'ab'", "sweep() returned a str"),
    ("{}def sweep():\n  return [3]", "trial 0 of sweep() is a int"),
    ("{}def sweep():\n  return []", "yields no trials"),
    ("{}def sweep():\n  return [dict(), dict()]", "already has this trial"),
    ("{}def sweep():\n  yield dict()\n  raise KeyError('k')", "wrong.py:4: KeyError"),
    ("{}def sweep():\n  yield dict(stepz=3)", "trial 0 {'stepz': 3}"),
    ("{}def sweep():\n  yield dict(steps=10**40)", "config.steps"),
    ("{}def sweep():\n  yield {'optimizer.b1': 10**400}", "override optimizer.b1"),
    ("{}def sweep():\n  yield {'optimizer.b1': print}", "optimizer.b1"),
    ("{}sweep = 3", "has no sweep()"),
    ("{}", "sweep()"),
]


@pytest.mark.parametrize(("source", "said"), SOURCES)
def test_a_wrong_config_file(source, said, workplace, capsys):
    start = "from small import get_config\n"
    (workplace / "wrong.py").write_text(source.replace("{}", start))
    sys.modules.pop("small", None)
    if source == "{}":
        (workplace / "small.py").write_text(
            (workplace / "small.py").read_text().replace("def sweep", "def sweeps")
        )
    line = refused("sweep", ["--config=wrong.py", "--workdir=w"], workplace, capsys)
    assert said in line


OPTIMIZERS = [
    ("dtype", "opt_state/count is i32[] and becomes f32[]"),
    ("shape", "opt_state/count is i32[] and becomes i32[2]"),
    ("form", "opt_state/more is missing and becomes i32[]"),
    ("number", "its update of"),
    ("nothing", "returned a dict, not an optax transformation"),
    ("fails", "RuntimeError: not today"),
    ("absent", "'mine' has no 'absent'"),
]


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize(("name", "said"), OPTIMIZERS)
@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_wrong_optimizer(command, name, said, workplace, capsys):
    path = workplace / "small.py"
    text = path.read_text().replace(
        "return config", "config.optimizer = OPT\n    return config"
    )
    path.write_text(f"OPT = dict(name='mine.{name}', learning_rate=0.1)\n" + text)
    words = ["--config=small.py", "--workdir=w"]
    line = refused(command, words, workplace, capsys)
    assert said in line
    assert "mine" in line


@pytest.mark.parametrize(
    ("command", "words", "said"),
    [
        ("report", [], "--workdir: missing"),
        ("report", ["--workdir="], "--workdir: missing"),
        ("report", ["--workdir=absent"], "absent: no such folder"),
        ("report", ["--workdir=a_file"], "a_file: no such folder"),
        ("report", ["--workdir=."], "no trials in it"),
        ("report", ["--workdir=study", "--baseline=C"], "'C': no trial has this label"),
        ("report", ["--workdir=study", "--metric=m"], "'m': not recorded"),
        ("report", ["--workdir=study", "--x=1"], "Unknown command line flag 'x'"),
        ("report", ["study"], "unexpected arguments: study"),
        ("leaderboard", ["--docs="], "--docs: empty"),
        ("leaderboard", ["--docs=absent"], "no run table"),
        ("leaderboard", ["--add=study"], "--add and --name go together"),
        ("leaderboard", ["--add=absent", "--name=x"], "absent: no such folder"),
        ("leaderboard", ["--add=study", "--name=x", "--docs=a_file"], "a_file"),
        ("leaderboard", ["now"], "unexpected arguments: now"),
        ("data", ["absent"], "absent: config.data.name: there is no data set"),
        ("data", ["--absent"], "unrecognized arguments: --absent"),
    ],
)
def test_a_wrong_folder_or_name(command, words, said, workplace, folder_of, capsys):
    folder_of([{"label": "A", "optimizer": {"learning_rate": 0.1}}])
    assert said in refused(command, words, workplace, capsys)


def test_a_corrected_baseline_and_metric_win_over_the_stored_ones(
    workplace, folder_of, capsys
):
    folder_of(
        [
            {"label": name, "optimizer": {"learning_rate": rate}, "loss": loss}
            for name in "AB"
            for rate, loss in ((0.1, 3.0), (0.2, 2.0), (0.4, 3.0))
        ],
        baseline="typo",
    )
    assert "typo" in refused("report", ["--workdir=study"], workplace, capsys)
    report.run(["report", "--workdir=study", "--baseline=B"])
    assert "differs from B's" in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_flag(command, capsys):
    for word in ("--help", "-h", "--helpfull"):
        COMMANDS[command]([command, word])
        text = capsys.readouterr().out
        source = importlib.import_module(f"gnomon.experiments.{command}").__file__
        cli = ROOT / "experiments" / "cli.py"
        sources = [Path(source)] + [cli] * (command in ("train", "sweep"))
        defined = re.findall(
            r"^ +(?:string|switch|whole|number|choice)\(\s*\"([\w.]+)\"",
            "".join(path.read_text() for path in sources),
            re.M,
        )
        assert len(defined) >= 2
        for name in defined:
            assert f"--{name}: " in text


def test_a_stop_while_planning_is_one_line(workplace, capsys):
    path = workplace / "small.py"
    path.write_text(path.read_text().replace("return [{}]", "raise KeyboardInterrupt"))
    words = ["--config=small.py", "--workdir=w"]
    assert "stopped" in refused("sweep", words, workplace, capsys, status=130)


@pytest.mark.parametrize(
    ("package", "said"),
    [("matplotlib", "the report's pictures"), ("tensorboardX", "config.tensorboard")],
)
def test_an_extra_that_the_end_would_need(
    package, said, workplace, capsys, monkeypatch
):
    monkeypatch.setitem(sys.modules, package, None)
    words = ["--config=small.py", "--workdir=w", "--config.tensorboard=true"]
    line = refused("sweep", words, workplace, capsys)
    assert said in line
    assert "pip install 'gnomon[experiments]'" in line


def test_every_extra_is_known_by_its_modules():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = setup["options.extras_require"]
    for extra in set(EXTRAS.values()):
        wanted = [n for n in extras[extra].splitlines() if n and n[0] not in "# "]
        names = {re.split(r"[<>=]", name)[0].replace("-", "_") for name in wanted}
        known = {name for name, of in EXTRAS.items() if of == extra}
        known = {
            {"absl": "absl_py", "orbax": "orbax_checkpoint", "PIL": "pillow"}.get(n, n)
            for n in known
        }
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
    stub = workplace / "stub" / "orbax.py"
    stub.parent.mkdir()
    stub.write_text("raise ModuleNotFoundError('no orbax', name='orbax')")
    ended = started(
        "import sys; sys.path.insert(0, 'stub')\n"
        "from gnomon.experiments.train import run\nrun()",
        workplace,
    )
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr == (
        "error: the package 'orbax' is not installed:"
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
    name, workplace, folder_of, capsys, monkeypatch
):
    import errno

    folder_of([{"label": "A", "optimizer": {"learning_rate": 0.1}}])
    number = getattr(errno, name)

    def fsync(descriptor):
        raise OSError(number, os.strerror(number), "study/report.json")

    monkeypatch.setattr(os, "fsync", fsync)
    line = refused("report", ["--workdir=study"], workplace, capsys)
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
