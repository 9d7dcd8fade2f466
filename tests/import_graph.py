"""Who imports whom, and how long the files are: ``python tests/import_graph.py``.

Prints each room with the rooms that it imports, its files, and its lines; ``--files``
prints the imports of every file. An import inside a function counts as any other and
is marked ``(inside)``; one for types alone, under ``TYPE_CHECKING``, does not count.
Ends with status 1 where `tests/test_floors.py` would fail.
"""

import argparse
import ast
import graphlib
import pathlib
import re
import statistics
import sys
from collections.abc import Iterator
from typing import NamedTuple

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
COMPONENTS = ("schedules", "tasks")  # files of experiments that configs name
LONGEST = 500


class Import(NamedTuple):
    """An import as it is written.

    Attributes:
      name: the absolute dotted name: a module's, or that of what is taken from one.
      inside: whether it stands inside a function.
    """

    name: str
    inside: bool


def package_of(path: pathlib.Path) -> list[str]:
    # src/gnomon/<room> is <room>, so the file's package follows from its path.
    return ["gnomon", *path.relative_to(ROOT).parent.parts]


def imports_of(path: pathlib.Path) -> list[Import]:
    """All that a file imports, at its top or inside a function, but for types alone."""
    package = package_of(path)

    def visit(node: ast.AST, inside: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for below in node.orelse:
                yield from visit(below, inside)
            return
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *filter(None, [node.module])])
            yield from (Import(f"{module}.{one.name}", inside) for one in node.names)
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for below in ast.iter_child_nodes(node):
            yield from visit(below, inside or function)

    return list(visit(ast.parse(path.read_text()), False))


def modules() -> dict[str, pathlib.Path]:
    """The files of every room, by the name each is imported as."""
    found = {}
    for room in FLOOR:
        for path in sorted((ROOT / room).rglob("*.py")):
            last = [] if path.stem == "__init__" else [path.stem]
            found[".".join([*package_of(path), *last])] = path
    return found


def graph() -> dict[str, dict[str, bool]]:
    """By module, the modules of gnomon that it imports, and whether only inside.

    That an import runs the ``__init__`` of the packages above is left out: a package
    that gathers its modules would be in a circle with each.
    """
    known = modules()
    edges: dict[str, dict[str, bool]] = {}
    for module, path in known.items():
        edges[module] = {}
        for name, inside in imports_of(path):
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name and name != module:
                edges[module][name] = inside and edges[module].get(name, True)
    return edges


def circle(edges: dict[str, dict[str, bool]]) -> list[str]:
    """A circle of modules, the first one named again at its end; empty without one."""
    try:
        graphlib.TopologicalSorter(edges).prepare()
    except graphlib.CycleError as error:
        return error.args[1][::-1]
    return []


def room_of(module: str) -> str:
    """A module's room; within experiments, its room there or its own name."""
    parts = module.split(".")
    return ".".join(parts[1:3] if parts[1] == "experiments" else parts[1:2])


def experiments_rooms() -> list[str]:
    """The rooms of experiments from the ground up, as its docstring lists them."""
    about = ast.get_docstring(ast.parse((ROOT / "experiments/__init__.py").read_text()))
    return re.findall(r"^\* `(\w+)/`", about or "", re.M)


def upward(edges: dict[str, dict[str, bool]]) -> list[str]:
    """Each import that does not point down, as ``importer -> imported``.

    A room may import the rooms of the floors below its own. A room of experiments may
    import those that are listed before it. Files beside them are commands, which no
    room imports, or components of configs, which import no room.
    """
    order = experiments_rooms()
    wrong = []
    for module, imported in edges.items():
        for other in imported:
            mine, theirs = module.split(".")[1], other.split(".")[1]
            here, there = room_of(module), room_of(other)
            if mine != theirs:
                bad = FLOOR[theirs] >= FLOOR[mine]
            elif mine != "experiments" or here == there:
                bad = False
            else:
                names = (name.partition(".")[2] for name in (here, there))
                # A command is above every room, and a component below.
                mine_at, theirs_at = (
                    order.index(name) if name in order else len(order) for name in names
                )
                bad = theirs_at >= mine_at or here.endswith(COMPONENTS)
            if bad:
                wrong.append(f"{module} -> {other}")
    return wrong


def lines_of(path: pathlib.Path) -> int:
    return len(path.read_text().splitlines())


def sizes(folder: str) -> dict[str, int]:
    """The lines of each Python file below a folder, by path."""
    paths = sorted((ROOT / folder).rglob("*.py"))
    return {str(path.relative_to(ROOT)): lines_of(path) for path in paths}


def too_long() -> dict[str, int]:
    """Files of source and tests above `LONGEST` lines."""
    every = [sizes(folder) for folder in (*FLOOR, "tests")]
    return {p: n for found in every for p, n in found.items() if n > LONGEST}


def report(files: bool) -> Iterator[str]:
    """The graph and the sizes, line by line."""
    edges = graph()
    rooms: dict[str, dict[str, bool]] = {}
    for module, imported in edges.items():
        row = rooms.setdefault(room_of(module), {})
        for other, inside in imported.items():
            if room_of(other) != room_of(module):
                row[room_of(other)] = inside and row.get(room_of(other), True)

    def marked(row: dict[str, bool]) -> str:
        names = (f"{name}{' (inside)' * row[name]}" for name in sorted(row))
        return ", ".join(names) or "-"

    for room, row in rooms.items():
        yield f"{room}: {marked(row)}"
        mine = [module for module in edges if room_of(module) == room]
        for module in mine if files else []:
            yield f"    {module}: {marked(edges[module])}"
    yield ""
    yield f"{'room':<14}{'files':>6}{'median':>8}{'largest':>9}{'lines':>8}" + (
        f"{'tests':>8}{'test:source':>13}"
    )
    for room in FLOOR:
        source, tests = sizes(room), sizes(f"tests/{room}")
        total, checked = sum(source.values()), sum(tests.values())
        middle = statistics.median(source.values())
        yield (
            f"{room:<14}{len(source):>6}{middle:>8.0f}{max(source.values()):>9}"
            f"{total:>8}{checked:>8}{checked / total:>13.2f}"
        )
    every = {p: n for room in FLOOR for p, n in sizes(room).items()}
    largest = max(every, key=every.__getitem__)
    middle = statistics.median(every.values())
    yield f"median {middle:.0f} lines, largest {every[largest]}: {largest}"


def faults() -> list[str]:
    """What is wrong with the house, a line each."""
    edges = graph()
    found = [f"upward: {line}" for line in upward(edges)]
    if around := circle(edges):
        found.append(f"circle: {' -> '.join(around)}")
    return found + [f"too long: {path}, {n} lines" for path, n in too_long().items()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", action="store_true", help="each file's imports")
    print(*report(parser.parse_args().files), sep="\n")
    found = faults()
    print(*(found or ["no circle, floors only downward, no file too long"]), sep="\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
