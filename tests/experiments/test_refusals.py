"""What a person can get wrong: one line, status 2, nothing trained, nothing written."""

import sys

import pytest

from gnomon.experiments import report

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
    ("--engine=cluster", "--engine=cluster"),
    ("--config.report.baseline=AdamX", "config.report.baseline='AdamX': no trial has"),
]

CASES = [(c, flag, said) for c in ("train", "sweep") for flag, said in FLAGS] + [
    ("sweep", flag, said) for flag, said in SWEEP_FLAGS
]


@pytest.mark.usefixtures("optax_promotion")
@pytest.mark.parametrize(("command", "flag", "said"), CASES)
def test_a_wrong_flag(command, flag, said, refused):
    words = ["--config=small.py", "--workdir=w", flag]
    assert said in refused(command, words)


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
def test_a_wrong_config_file(source, said, workplace, refused):
    start = "from small import get_config\n"
    (workplace / "wrong.py").write_text(source.replace("{}", start))
    sys.modules.pop("small", None)
    if source == "{}":
        (workplace / "small.py").write_text(
            (workplace / "small.py").read_text().replace("def sweep", "def sweeps")
        )
    line = refused("sweep", ["--config=wrong.py", "--workdir=w"])
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
def test_a_wrong_folder_or_name(command, words, said, folder_of, refused):
    folder_of([{"label": "A", "optimizer": {"learning_rate": 0.1}}])
    assert said in refused(command, words)


def test_a_corrected_baseline_and_metric_win_over_the_stored_ones(
    folder_of, capsys, refused
):
    folder_of(
        [
            {"label": name, "optimizer": {"learning_rate": rate}, "loss": loss}
            for name in "AB"
            for rate, loss in ((0.1, 3.0), (0.2, 2.0), (0.4, 3.0))
        ],
        baseline="typo",
    )
    assert "typo" in refused("report", ["--workdir=study"])
    report.run(["report", "--workdir=study", "--baseline=B"])
    assert "differs from B's" in capsys.readouterr().out
