"""Writes ``optimizers/__init__.pyi``: what type checkers and editors know of the names.

    python tests/support/optimizers_stub.py

They do not run ``__getattr__``. ``make format`` writes it; a test finds an old one.
"""

from gnomon.optimizers._names import HERE, MODULES, modules_by_name

STUB = HERE / "__init__.pyi"


def stub() -> str:
    lines = ["# Written by tests/support/optimizers_stub.py from the modules' __all__."]
    for name, module in sorted(modules_by_name().items(), key=lambda pair: pair[::-1]):
        package, _, last = module.rpartition(".")
        if name in MODULES:
            lines.append(f"from {package} import {last} as {name}")
        else:
            lines.append(f"from {module} import {name} as {name}")
    listed = [f'    "{name}",' for name in sorted(modules_by_name())]
    return "\n".join([*lines, "", "__all__ = [", *listed, "]", ""])


if __name__ == "__main__":
    STUB.write_text(stub())
