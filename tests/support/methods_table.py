"""Writes ``docs/methods.csv``: one row a public optimizer, from the code.

    python tests/support/methods_table.py

Names and modules are those of the code, papers those of the docstrings, settings those
of the config lines, and what a method was compared with stands in its test file.
``make format`` writes it; a test finds an old one.
"""

import csv
import importlib
import inspect
import io
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from gnomon import optimizers
from gnomon.experiments.configs.optimizers import OPTIMIZERS
from gnomon_contract import Verified, collect
from gnomon_contract.public import PUBLIC

TABLE = Path(__file__).parents[2] / "docs" / "methods.csv"
COLUMNS = (
    "catalogue",
    "name",
    "module",
    "test",
    "config lines",
    "paper",
    "compared with",
    "largest difference",
)
LINK = re.compile(r"<(https?://[^>\s]+)>")


def methods() -> list[str]:
    """The public transforms that are methods.

    Mechanisms are none, and a direction is listed as the optimizer that it is part of.
    """
    of_module: dict[str, list[str]] = {}
    for public in PUBLIC:
        of_module.setdefault(public.make.__module__, []).append(public.name)
    found = []
    for module, names in of_module.items():
        whole = [n for n in names if not n.startswith(("scale_by_", "add_"))]
        if ".mechanisms." not in module:
            found += whole or names
    return sorted(found)


def paper(name: str) -> str:
    """The first paper that a method refers to, or its module does."""
    made = getattr(optimizers, name)
    module = inspect.getsource(importlib.import_module(made.__module__))
    found = LINK.search(made.__doc__ or "") or LINK.search(module)
    return found[1] if found else ""


def table(names: Iterable[str], verified: Mapping[str, Verified]) -> str:
    """The table of these methods, and of config lines that are methods by themselves.

    Raises:
      ValueError: if one of them does not say what it was compared with, or something
        else does.
    """
    names = sorted(names)
    lines: dict[str, list[str]] = {}
    for label, line in OPTIMIZERS.items():
        lines.setdefault(line["name"], []).append(label)
    missing = set(names) - verified.keys()
    unknown = verified.keys() - {*names, *OPTIMIZERS}
    if missing or unknown:
        raise ValueError(
            f"VERIFIED: the methods {sorted(missing)} are missing, and "
            f"{sorted(unknown)} are none"
        )
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for name, said in sorted(verified.items(), key=lambda pair: pair[0]):
        if name in names:
            path = f"gnomon.optimizers.{name}"
            module, of_paper = getattr(optimizers, name).__module__, paper(name)
            labels = [x for x in lines.get(path, []) if x == name or x not in verified]
        else:  # a config line of somebody else's optimizer, under another name
            module = OPTIMIZERS[name]["name"]
            labels, of_paper = [name], said.paper
        bound = (
            "" if said.within is None else f"{said.within:.0e}" if said.within else "0"
        )
        against = said.against or "not verified against"
        where = collect.file_of(name)
        rows.writerow(
            (
                said.catalogue,
                name,
                module,
                where,
                " ".join(labels),
                of_paper,
                against,
                bound,
            )
        )
    return text.getvalue()


if __name__ == "__main__":
    TABLE.write_text(table(methods(), collect.verified()))
