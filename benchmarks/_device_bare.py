"""What a machine without a network needs: a path to gnomon, and packages as wheels."""

import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHEELS = ROOT / "wheels"
# By the module that is imported: the package, and what it is for.
NEEDED = {
    "jax": ("jax", "everything; on a GPU with jax-cuda13-plugin and jax-cuda13-pjrt"),
    "jaxlib": ("jaxlib", "everything"),
    "numpy": ("numpy", "everything"),
    "absl": ("absl-py", "everything"),
    "optax": ("optax", "everything"),
    "flax": ("flax", "steps, sweep"),
    "msgpack": ("msgpack", "flax"),
    "orbax": ("orbax-checkpoint", "flax"),
    "tensorstore": ("tensorstore", "flax"),
    "rich": ("rich", "flax"),
    "treescope": ("treescope", "flax"),
    "yaml": ("PyYAML", "flax, ml-collections"),
    "ml_collections": ("ml-collections", "steps, sweep"),
}


def missing() -> dict[str, str]:
    """Packages that are not there, and what for; of those that are needed."""
    return {
        package: purpose
        for module, (package, purpose) in NEEDED.items()
        if importlib.util.find_spec(module) is None
    }


def wheels() -> str:
    """What to bring, and how."""
    lines = ["Python 3.12, and the wheels of:"]
    absent = missing()
    for package, purpose in NEEDED.values():
        mark = "  missing here" if package in absent else ""
        lines.append(f"  {package}: {purpose}{mark}")
    names = " ".join(absent) or "NAMES"
    lines += [
        "Where there is a network, with the versions of jax and jaxlib that the machine"
        " has:",
        f"  python -m pip download --only-binary=:all: --python-version 3.12 -d"
        f" {WHEELS.name} --no-deps {names}",
        "Those of pure Python need no installation: what is missing is found in"
        f" {WHEELS.name}/*-none-any.whl of the checkout.",
    ]
    return "\n".join(lines)


def prepare() -> None:
    """Makes gnomon, and wheels that were brought, importable here and in children."""
    paths = [str(Path(__file__).parent), str(_source()), *_brought()]
    for path in reversed(paths):
        if path not in sys.path:
            sys.path.insert(0, path)
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    kept = [path for path in given if path and path not in paths]
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *kept])


def _brought() -> list[str]:
    """Wheels of pure Python whose package is not installed."""
    modules = {package.lower(): module for module, (package, _) in NEEDED.items()}
    found = []
    for wheel in sorted(WHEELS.glob("*-none-any.whl")):
        name = wheel.name.split("-")[0].lower()
        module = modules.get(name.replace("_", "-"), name)
        if importlib.util.find_spec(module) is None:
            found.append(str(wheel))
    return found


def _source() -> Path:
    """The folder of the package; a copy of links where the checkout has lost its own.

    Copying a checkout may leave the contents of its symbolic links, or files.
    """
    package = ROOT / "src" / "gnomon"
    rooms = [path for path in package.iterdir() if "." not in path.name]
    rooms = [path for path in rooms if path.name != "__pycache__"]
    if rooms and all((path / "__init__.py").exists() for path in rooms):
        return package.parent
    copy = Path(tempfile.mkdtemp(prefix="gnomon-")) / "gnomon"
    copy.mkdir()
    shutil.copy(package / "__init__.py", copy)
    for room in ROOT.iterdir():
        if (room / "__init__.py").exists():
            (copy / room.name).symlink_to(room)
    return copy.parent
