"""The house stands: an import only ever points down, and the ground floor is light."""

import ast
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
FLOOR = {
    "parameters": 0,
    "kernels": 1,
    "optimizers": 2,
    "models": 2,
    "dynamics": 2,
    "scaling": 2,
    "experiments": 3,
}
# Imports that belong to one room, or to the rooms from a floor up.
ALLOWED = {
    "parameters": {"jax", "numpy", "optax"},
    "kernels": {"jax", "numpy"},
    "optimizers": {"jax", "numpy", "optax"},
    "models": {"jax", "numpy", "flax"},
    "dynamics": {"jax", "numpy", "optax"},
    "scaling": {"numpy", "scipy"},
}


def imported_modules(path: pathlib.Path) -> set[str]:
    """Absolute dotted names that a file imports, at its top or inside a function."""
    # src/gnomon/<room> is <room>, so the file's package follows from its path.
    package = ["gnomon", *path.relative_to(ROOT).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            names |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return names


def rooms_of(names: set[str]) -> set[str]:
    parts = [name.split(".") for name in names]
    return {p[1] for p in parts if p[0] == "gnomon" and len(p) > 1 and p[1] in FLOOR}


FILES = sorted(path for room in FLOOR for path in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path):
    room = path.relative_to(ROOT).parts[0]
    names = imported_modules(path)
    above = {r for r in rooms_of(names) - {room} if FLOOR[r] >= FLOOR[room]}
    assert not above, f"{room} (floor {FLOOR[room]}) imports {sorted(above)}"
    bare = {name.split(".")[0] for name in names}
    assert not bare & FLOOR.keys(), "import rooms as gnomon.<room>"
    if room in ALLOWED:
        foreign = bare - ALLOWED[room] - {"gnomon"} - sys.stdlib_module_names
        assert not foreign, f"{room} imports {sorted(foreign)}"


def test_the_check_sees_every_form_of_import(tmp_path, monkeypatch):
    """A check that walks the syntax tree is only as good as its walk."""
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    source = tmp_path / "optimizers" / "sub" / "x.py"
    source.parent.mkdir(parents=True)
    source.write_text(
        "import gnomon.models.mlp\n"
        "def f():\n    from gnomon import experiments\n"
        "from ...dynamics import probes\n"
        "from .. import adamp\n"
    )
    assert rooms_of(imported_modules(source)) == {
        "models",
        "experiments",
        "dynamics",
        "optimizers",
    }


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
