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
from gnomon.experiments.config import defaults, open_config, override, plain
from gnomon.experiments.config.cli import changed
from gnomon.experiments.config.template import OWN as SECTIONS
from gnomon.experiments.console.errors import EXTRAS, explain
from gnomon.experiments.data import __main__ as data

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
import jax
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

def absent_updates(learning_rate):
    return make(lambda g, s, p=None: (None, s))

def all_none(learning_rate):
    return make(lambda g, s, p=None: (jax.tree.map(lambda x: None, g), s))

def some_absent(learning_rate):
    return make(lambda g, s, p=None: ({k: g[k] for k in sorted(g)[1:]}, s))

def whole_numbers(learning_rate):
    return make(lambda g, s, p=None: (jax.tree.map(lambda x: x.astype(int), g), s))

def complex_numbers(learning_rate):
    return make(lambda g, s, p=None: (jax.tree.map(lambda x: x + 1j, g), s))

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
    monkeypatch.setattr("gnomon.experiments.config.cli.configure_jax", lambda: None)
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
    ("--config.static[0]=8", "--config.static[0]=8: "),
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


PLACEHOLDER = """import ml_collections, small
def get_config():
  config = small.get_config()
  config.optimizer.b1 = ml_collections.config_dict.required_placeholder(float)
  return config
"""
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
    ("get_config = dict", "get_config is no function of the file"),
    ("def get_config(a, b): pass", "get_config(a, b) needs more than one argument"),
    ("def get_config(a, *, b): pass", "get_config(a, *, b) needs more than one"),
    ("def get_config():\n  return {'a.b': 3}", "get_config() returned no config: "),
    ("c = dict()\nc['c'] = c\ndef get_config():\n  return c", "contains itself"),
    (PLACEHOLDER, "config.optimizer.b1: a placeholder without a value"),
    *[
        (f"{{}}def sweep():\n  yield {changes}", said)
        for changes, said in (
            ("{'schedule.peak': 0.1}", "taken from config.optimizer.learning_rate"),
            ("{'schedule.steps': 3}", "taken from config.steps"),
            ("{'model.rngs': 3}", "taken from config.seed"),
            ("{'optimizer': {'name': 3}}", "config.optimizer.name: cannot import 3"),
            ("{'optimizer': {'name': '..adamw'}}", "cannot import '..adamw'"),
            ("{'schedule': {'name': '../../x'}}", "config.schedule.name: cannot imp"),
            ("{'model.kind': {'ref': 3}}", "config.model.kind.ref: cannot import 3"),
            ("{'model.kind': {'name': []}}", "config.model.kind.name: cannot import"),
            ("{'model': {'name': 'math.pi'}}", "model.name='math.pi': a float, which"),
        )
    ],
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
    ("absent_updates", "is missing"),
    ("all_none", "every parameter is None: nothing would be trained"),
    ("some_absent", "is missing"),
    ("whole_numbers", "is int32; it needs real floating numbers"),
    ("complex_numbers", "is complex64; it needs real floating numbers"),
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


TASKS = """
import jax.numpy as jnp
from gnomon.experiments.tasks import next_token

def task(**more):
    def call(apply, batch):
        return next_token(apply, batch)[0], {k: f(batch) for k, f in more.items()}
    return call

loss, count, learning_rate = (
    task(**{name: lambda b: 1.0}) for name in ("loss", "count", "learning_rate")
)
vector = task(m=lambda b: jnp.zeros((3,)))
imaginary = task(m=lambda b: jnp.zeros((), complex))
words = task(m=lambda b: "text")

def alone(apply, batch):
    return next_token(apply, batch)[0], 3.0

def pair(apply, batch):
    return jnp.zeros((2,)), {}

def rate(peak, steps):
    return lambda step: peak * float(step)

def number(peak, steps):
    return lambda step: float(peak)
"""


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize(
    ("field", "said"),
    [
        *[
            ("loss", "its metric 'loss' has the name of what gnomon records itself"),
            ("count", "its metric 'count' has the name"),
            ("learning_rate", "its metric 'learning_rate' has the name"),
            ("vector", "its metric 'm' is float32 of shape (3,); give one real number"),
            ("imaginary", "its metric 'm' is complex64 of shape ()"),
            ("words", "its metric 'm' is a str"),
            ("alone", "its metrics are a float; return the loss and a mapping"),
            ("pair", "its loss is float32 of shape (2,)"),
        ],
        ("rate", "of the step, or of a number of its own"),
        ("number", "write it with jax.numpy"),
    ],
)
def test_a_wrong_task_or_schedule(field, said, workplace, capsys, monkeypatch):
    (workplace / "theirs.py").write_text(TASKS)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    of = "schedule" if field in ("rate", "number") else "task"
    word = f"--config.{of}{'.name' if of == 'schedule' else ''}=theirs.{field}"
    words = ["--config=small.py", "--workdir=w", word]
    line = refused("sweep", words, workplace, capsys)
    assert f"config.{of}" in line
    assert f"theirs.{field}" in line
    assert said in line


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


def test_a_stop_while_planning_is_one_line(workplace, capsys):
    path = workplace / "small.py"
    path.write_text(path.read_text().replace("return [{}]", "raise KeyboardInterrupt"))
    words = ["--config=small.py", "--workdir=w"]
    assert "stopped" in refused("sweep", words, workplace, capsys, status=130)


OWN = {name: defaults().to_dict()[name] for name in SECTIONS}


@pytest.mark.parametrize("section", OWN)
def test_a_section_given_in_part_has_its_other_fields(section, workplace, tiny):
    """From the file, the command line, an override, and a caller of the library."""
    fields = plain(OWN[section])
    for given in [{}, *({name: value} for name, value in OWN[section].items())]:
        source = f"config.{section} = dict(**{given!r})\n    return config"
        text = (workplace / "small.py").read_text()
        (workplace / "part.py").write_text(text.replace("return config", source))
        file = open_config("part.py")
        for name, value in OWN[section].items():
            word = f"--config.{section}.{name}={value}"
            assert changed(file, [word])[section] == fields
        base = tiny() | {section: {}}
        assert override(base, {})[section] == fields
        assert override(base, {section: given})[section] == fields
        last = {f"{section}.{name}": value for name, value in given.items()}
        assert override(base, last | {section: given})[section] == fields


def test_a_deleted_current_folder_is_one_line(workplace, capsys, monkeypatch):
    (workplace / "gone").mkdir()
    monkeypatch.chdir(workplace / "gone")
    (workplace / "gone").rmdir()
    for command in COMMANDS:
        line = refused(command, [f"--config={workplace}/small.py"], workplace, capsys)
        assert "the current folder has been deleted" in line


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
