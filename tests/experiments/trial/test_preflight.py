"""Components as a person may write them: what they get wrong is found before a run."""

import sys

import pytest

# Optimizers, each wrong in a way of its own.
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
def test_a_wrong_optimizer(command, name, said, workplace, refused, monkeypatch):
    (workplace / "mine.py").write_text(MINE)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    path = workplace / "small.py"
    text = path.read_text().replace(
        "return config", "config.optimizer = OPT\n    return config"
    )
    path.write_text(f"OPT = dict(name='mine.{name}', learning_rate=0.1)\n" + text)
    words = ["--config=small.py", "--workdir=w"]
    line = refused(command, words)
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
def test_a_wrong_task_or_schedule(field, said, workplace, monkeypatch, refused):
    (workplace / "theirs.py").write_text(TASKS)
    monkeypatch.delitem(sys.modules, "theirs", raising=False)
    of = "schedule" if field in ("rate", "number") else "task"
    word = f"--config.{of}{'.name' if of == 'schedule' else ''}=theirs.{field}"
    words = ["--config=small.py", "--workdir=w", word]
    line = refused("sweep", words)
    assert f"config.{of}" in line
    assert f"theirs.{field}" in line
    assert said in line
