"""The house stands: an import only ever points down, and the ground floor is light."""

import subprocess
import sys

import import_graph
import pytest
from import_graph import FLOOR, ROOT, imports_of

# Imports that belong to one room, or to the rooms from a floor up.
ALLOWED = {
    "parameters": {"jax", "numpy", "optax"},
    "kernels": {"jax", "numpy"},
    "optimizers": {"jax", "numpy", "optax"},
    "models": {"jax", "numpy", "flax"},
    "dynamics": {"jax", "numpy", "optax"},
    "scaling": {"numpy", "scipy"},
}


FILES = sorted(import_graph.modules().values())


@pytest.fixture(scope="module")
def edges():
    return import_graph.graph()


def test_imports_point_down(edges):
    """Between the rooms, and between those of experiments."""
    assert import_graph.upward(edges) == []


def test_no_module_is_in_a_circle(edges):
    assert import_graph.circle(edges) == []


def test_no_file_is_too_long():
    assert import_graph.too_long() == {}


def test_every_room_of_experiments_is_listed():
    folders = {p.parent.name for p in (ROOT / "experiments").glob("*/__init__.py")}
    assert set(import_graph.experiments_rooms()) == folders


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_a_room_imports_only_what_it_may(path):
    room = path.relative_to(ROOT).parts[0]
    bare = {one.name.split(".")[0] for one in imports_of(path)}
    assert not bare & FLOOR.keys(), "import rooms as gnomon.<room>"
    if room in ALLOWED:
        foreign = bare - ALLOWED[room] - {"gnomon"} - sys.stdlib_module_names
        assert not foreign, f"{room} imports {sorted(foreign)}"


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A function that writes files of a small house, which is then looked at."""
    monkeypatch.setattr(import_graph, "ROOT", tmp_path)
    rooms = '"""Rooms:\n\n* `console/`: low.\n* `fleet/`: high.\n"""\n'

    def write(**files):
        for name, text in {"experiments/__init__": rooms, **files}.items():
            path = tmp_path / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return write


def test_the_check_sees_every_form_of_import(house):
    """A check that walks the syntax tree is only as good as its walk."""
    house(
        **{
            "optimizers/sub/x": "import gnomon.models.mlp\n"
            "def f():\n    from gnomon import experiments\n"
            "from ...dynamics import probes\n"
            "from .. import adamp\n"
            "if TYPE_CHECKING:\n    import gnomon.kernels\n",
            "optimizers/adamp": "",
            "models/mlp": "",
            "dynamics/probes": "",
            "kernels/__init__": "",
        }
    )
    edges = import_graph.graph()
    assert edges["gnomon.optimizers.sub.x"] == {
        "gnomon.models.mlp": False,
        "gnomon.experiments": True,
        "gnomon.dynamics.probes": False,
        "gnomon.optimizers.adamp": False,
    }
    assert len(import_graph.upward(edges)) == 3


def test_the_check_sees_circles_and_what_points_up(house):
    house(
        **{
            "experiments/console/a": "def f():\n"
            "    from gnomon.experiments.fleet import b",
            "experiments/fleet/b": "from gnomon.experiments.console import a",
            "experiments/fleet/c": "import gnomon.experiments.train",
            "experiments/train": "from gnomon.experiments.fleet import b",
            "experiments/tasks": "from gnomon.experiments.console import a",
            "scaling/long": "\n" * 501,
        }
    )
    edges = import_graph.graph()
    a, b = "gnomon.experiments.console.a", "gnomon.experiments.fleet.b"
    assert sorted(import_graph.upward(edges)) == [
        f"{a} -> {b}",
        "gnomon.experiments.fleet.c -> gnomon.experiments.train",
        f"gnomon.experiments.tasks -> {a}",
    ]
    assert set(import_graph.circle(edges)) == {a, b}
    assert import_graph.too_long() == {"scaling/long.py": 501}
    assert len(import_graph.faults()) == 5
    assert any("(inside)" in line for line in import_graph.report(files=False))


def test_optimizers_load_nothing_heavy():
    """``import gnomon.optimizers`` costs what ``import optax`` costs."""
    script = (
        "import sys\nfrom gnomon.optimizers import *\n"
        "heavy = {'flax', 'orbax', 'grain', 'tensorflow_datasets', 'matplotlib'}\n"
        "print(*sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == []
