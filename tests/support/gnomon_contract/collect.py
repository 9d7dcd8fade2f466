"""What the test files of all methods say of them."""

import functools
import re
import runpy
from pathlib import Path
from typing import Any

from gnomon_contract.rows import Row

TESTS = Path(__file__).parents[2] / "optimizers"
SAYS = re.compile(r"^(ROWS|GIVEN|LAYERS)\b", re.MULTILINE)


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
