"""optax transforms that act on what weights are: their norms, directions, variances.

Each method is one file with its formula, references and the differences between the
paper and its authors' code, in a folder of its family; what many of them have in common
is in ``mechanisms``. Public names are flat: ``gnomon.optimizers.adamp``. What a module
lists in its ``__all__`` is public, and is imported when it is asked for.

``geometry`` is ``gnomon.parameters.units``: which axes form one output unit.
``constraints`` is ``gnomon.optimizers.mechanisms.sets``: sets that weights can stay on.
"""

import importlib
from typing import Any

from gnomon.optimizers._names import MODULES, modules_by_name, suggestion


def __getattr__(name: str) -> Any:
    if name == "__all__":  # of ``from gnomon.optimizers import *``
        found: Any = sorted(modules_by_name())
    else:
        if name.startswith("__") or name not in modules_by_name():
            raise AttributeError(
                f"module {__name__!r} has no attribute {name!r}{suggestion(name)}",
                name=name,
            )
        module = importlib.import_module(modules_by_name()[name])
        found = module if name in MODULES else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *modules_by_name()})
