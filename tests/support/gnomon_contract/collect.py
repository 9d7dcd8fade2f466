"""What the test files of all methods say of them."""

import functools
import re
import runpy
from pathlib import Path
from typing import Any

from gnomon_contract.rows import Row
from gnomon_contract.verified import Verified

TESTS = Path(__file__).parents[2] / "optimizers"
SAYS = re.compile(r"^(ROWS|GIVEN|LAYERS|TRAITS|VERIFIED|COMPLEX)\b", re.MULTILINE)


@functools.cache
def _files() -> dict[str, dict[str, Any]]:
    paths = sorted(TESTS.rglob("test_*.py"))
    return {
        str(path.relative_to(TESTS)): runpy.run_path(str(path))
        for path in paths
        if SAYS.search(path.read_text())
    }


def _merged(what: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for file, said in _files().items():
        entries = said.get(what, {})
        if what == "ROWS":
            entries = {row.name: row for row in entries}
        twice = entries.keys() & found.keys()
        if twice:
            raise ValueError(f"{file}: {what} has {sorted(twice)} again")
        found |= entries
    return found


def rows() -> list[Row]:
    """Every row, in the order of the files."""
    return list(_merged("ROWS").values())


def given() -> dict[str, dict[str, Any]]:
    """The arguments that a public function is built with, by its name."""
    return _merged("GIVEN")


def layers() -> dict[str, Any]:
    """How a public function is built for stacks of layers, by its name."""
    return _merged("LAYERS")


def having(trait: str) -> set[str]:
    """The public functions that have a trait."""
    traits = _merged("TRAITS")
    found = {had for several in traits.values() for had in several}
    if trait not in found:
        raise ValueError(f"no test file has {trait!r} in TRAITS; there are: {found}")
    return {name for name, several in traits.items() if trait in several}


def verified() -> dict[str, Verified]:
    """What public methods were compared with, by name."""
    return _merged("VERIFIED")


def file_of(name: str) -> str:
    """The test file that says what a method was compared with."""
    files = (f for f, said in _files().items() if name in said.get("VERIFIED", {}))
    return f"tests/optimizers/{next(files)}"


def complex_adam() -> dict[str, Any]:
    """Makers of what is Adam, at the rate 0.1, on complex numbers too, by name."""
    return _merged("COMPLEX")
