"""What an experiment is: the fields of a config, their checks, and trials made of it.

What a config file needs is importable from here.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gnomon.experiments.config.changes import override
    from gnomon.experiments.config.source import load, open_config
    from gnomon.experiments.config.template import defaults, filled, parse_arg, plain
    from gnomon.experiments.config.validation import validate

__all__ = [
    "defaults",
    "filled",
    "load",
    "open_config",
    "override",
    "parse_arg",
    "plain",
    "validate",
]
_HOME = {
    "load": "source",
    "open_config": "source",
    "override": "changes",
    "validate": "validation",
}


def __getattr__(name: str) -> Any:
    # Only now: data and reports import modules of this room, but not models and JAX.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(f"{__name__}.{_HOME.get(name, 'template')}")
    return getattr(home, name)
