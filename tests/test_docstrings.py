"""One dialect of docstrings in all rooms, read from the sources without an import.

Every public function, method and class has a line of summary; where it has more, then
in the sections below, in that order. ``Args`` lists what the signature takes, all of
it in order, each with a phrase in lower case.
"""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parent.parent
ROOMS = (
    "parameters",
    "kernels",
    "optimizers",
    "models",
    "dynamics",
    "scaling",
    "experiments",
)
SECTIONS = (
    "Args",
    "Attributes",
    "Returns",
    "Yields",
    "Raises",
    "Example",
    "References",
    "Differences",
)
# What a phrase may start with in upper case.
NAMES = {"None", "True", "False", "Adam", "Huber", "Lanczos", "Nesterov", "Python"}


def public(body: list[ast.stmt], prefix: str = "") -> list[tuple[str, ast.stmt]]:
    """Functions and classes that a reader may use, and a class's own of both."""
    found = []
    for node in body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        if node.name.startswith("_") and node.name != "__call__":
            continue
        found.append((prefix + node.name, node))
        if isinstance(node, ast.ClassDef):
            found += public(node.body, f"{prefix}{node.name}.")
    return found


def parameters(node: ast.stmt) -> list[str]:
    """What a call takes, stars as in the signature; what it ignores is ``_``."""
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if getattr(n, "name", "") == "__init__"]
        return parameters(inits[0]) if inits else []
    a = node.args
    names = [x.arg for x in (*a.posonlyargs, *a.args)]
    names += [f"*{a.vararg.arg}"] if a.vararg else []
    names += [x.arg for x in a.kwonlyargs]
    names += [f"**{a.kwarg.arg}"] if a.kwarg else []
    first = names[:1] if names[:1] in (["self"], ["cls"]) else []
    return [name for name in names[len(first) :] if name.strip("*") != "_"]


def sections(text: str) -> dict[str, list[str]]:
    """The indented lines below each heading; those before the first are dropped."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z][A-Za-z ]*:", line):
            lines = found[line[:-1]] = []
        elif line.startswith("  "):
            lines.append(line[2:])
    return found


def faults(node: ast.stmt) -> list[str]:
    """What is wrong with the docstring of a function or a class."""
    text = ast.get_docstring(node)
    if not text:
        return ["has no docstring"]
    wrong = []
    summary, *rest = text.splitlines()
    if not summary.endswith((".", "?", ":")) or (rest and rest[0]):
        wrong.append("does not start with one line, a sentence")
    parts = sections(text)
    known = [name for name in SECTIONS if name in parts]
    if list(parts) != known:
        wrong.append(f"has the sections {list(parts)}, not of and as {SECTIONS}")
    takes = parameters(node)
    if "Args" in parts:
        entries = [re.match(r"(\*{0,2}\w+): (\S+)", line) for line in parts["Args"]]
        listed = [(e[1], e[2]) for e in entries if e]
        names = [name for name, _ in listed]
        if names != takes:
            wrong.append(f"lists {names} in Args and takes {takes}")
        for name, word in listed:
            if re.match(r"[A-Z][a-z]", word) and not NAMES & set(
                re.findall(r"\w+", word)
            ):
                wrong.append(f"says {word!r} of {name}, in upper case")
    elif "Returns" in parts and takes:
        wrong.append(f"says what it returns and not what it takes: {takes}")
    if "Raises" in parts and not re.match(r"[A-Z]\w+: ", parts["Raises"][0]):
        wrong.append("names no exception in Raises")
    if "Example" in parts and not any(">>>" in line for line in parts["Example"]):
        wrong.append("has an Example that does not run")
    return wrong


@pytest.mark.parametrize("room", ROOMS)
def test_docstrings_speak_one_dialect(room):
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {name} {fault}"
        for path in sorted((ROOT / room).rglob("*.py"))
        for name, node in public(ast.parse(path.read_text()).body)
        for fault in faults(node)
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("def f(): pass", "no docstring"),
        ('def f(): """A summary\n\n    goes on."""', "one line"),
        (
            'def f(a, *b): """Sums.\n\n    Args:\n      a: one."""',
            r"takes \['a', '\*b'\]",
        ),
        ('def f(a): """Sums.\n\n    Args:\n      a: The one."""', "upper case"),
        ('def f(): """Sums.\n\n    Examples:\n      >>> f()"""', "sections"),
        (
            'def f(a): """S.\n\n    Returns:\n      b.\n\n    Args:\n      a: b."""',
            "sect",
        ),
        ('def f(a): """Sums.\n\n    Returns:\n      A sum."""', "not what it takes"),
        ('def f(): """Sums.\n\n    Raises:\n      If it fails."""', "no exception"),
        ('def f(): """Sums.\n\n    Example:\n      f()"""', "does not run"),
    ],
)
def test_each_fault_is_seen(source, fault):
    (_, node), *_ = public(ast.parse(source).body)
    (found,) = faults(node)
    assert re.search(fault, found)
