"""Which module a public name of the optimizers is in, from the sources alone."""

import ast
import difflib
import functools
import re
from pathlib import Path

HERE = Path(__file__).parent
PUBLIC = re.compile(r"^__all__ = (\[.*?\])", re.DOTALL | re.MULTILINE)
# Names that stand for a module.
MODULES = {
    "constraints": "gnomon.optimizers.mechanisms.sets",
    "geometry": "gnomon.parameters.units",
}
# What users of the transforms need of the ground floor.
UNITS = (
    "OUTPUTS_FIRST",
    "Axes",
    "cosine",
    "project_tangent",
    "resolve_axes",
    "retract",
    "unit_axes",
    "unit_norm",
)


@functools.cache
def modules_by_name() -> dict[str, str]:
    """The module of every public name; read from the sources, which takes a few ms.

    Raises:
      ValueError: if two modules have a public name in common.

    Example:
      >>> modules_by_name()["adamp"]
      'gnomon.optimizers.norms.adamp'
    """
    found = MODULES | dict.fromkeys(UNITS, "gnomon.parameters.units")
    for path in sorted(HERE.rglob("*.py")):
        listed = PUBLIC.search(path.read_text(encoding="utf-8"))
        if listed is None:
            continue
        inside = path.relative_to(HERE).with_suffix("").parts
        module = ".".join(("gnomon.optimizers", *inside))
        for name in ast.literal_eval(listed[1]):
            if name in found:
                raise ValueError(f"{name!r} is public in {found[name]} and {module}")
            found[name] = module
    return found


def suggestion(name: str) -> str:
    """The public name that was meant, for the message of an AttributeError.

    >>> suggestion("adam_p")
    "; did you mean 'adamp'?"
    """
    close = difflib.get_close_matches(name, modules_by_name(), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
