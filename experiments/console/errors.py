"""Errors that a person can cause, and the one line that says what to do.

A command ends in such a line and exit status 2. What is left is a fault of gnomon, and
shows its trace.
"""

import errno
import os
import re
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
# What a person may write, or name: neither gnomon's own code nor what is installed.
_INSTALLED = tuple(
    sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")
)
_CONFIGS = str(Path(__file__).parents[1] / "configs")
_DISK = ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO")
_FIXES = {
    errno.ENOSPC: "free some space, then run the same command again to go on",
    errno.EDQUOT: "free some space, then run the same command again to go on",
    errno.EFBIG: "raise the limit (ulimit -f), then run the same command again",
    errno.EROFS: "give a folder that can be written",
    errno.EACCES: "give a folder that you may read and write",
    errno.EPERM: "give a folder that you may read and write",
    errno.ENOTDIR: "a part of the path is a file; give a folder",
    errno.EEXIST: "it is a file; give a folder",
    errno.EISDIR: "it is a folder; give a file",
    errno.ENAMETOOLONG: "give a shorter path",
    errno.EIO: "the disk failed; copy what is there, and go on elsewhere",
}
EXTRAS = dict.fromkeys(
    (
        *("absl", "array_record", "flax", "grain", "importlib_resources", "matplotlib"),
        *("ml_collections", "mlxtend", "PIL", "tensorboardX"),
        "tensorflow_datasets",
        "tqdm",
    ),
    "experiments",
) | {
    "ray": "ray",
    "submitit": "slurm",
    "optuna": "optuna",
    "tokenizers": "tokens",
    "pyarrow": "tokens",
    "wandb": "wandb",
    "trackio": "trackio",
}
"""The extra of gnomon that installs a package, by the package's module."""


class UserError(ValueError):
    """What a person can cause and mend; the message names what is wrong and the fix."""


def explain(error: BaseException) -> str | None:
    """Says in a line what a person can do about an error, None for a fault of gnomon.

    >>> explain(FileNotFoundError(2, "No such file or directory", "a.py"))
    'a.py: No such file or directory'
    >>> explain(KeyError("x")) is None
    True
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, SyntaxError) and _theirs(error.filename):
        return f"{error.filename}:{error.lineno}: {type(error).__name__}: {error.msg}"
    place = _place(error)
    if isinstance(error, ModuleNotFoundError):
        said = missing(error)
        return said and f"{place}: {said}" if place else said
    if place:
        if isinstance(error, OSError) and error.strerror is not None:
            return f"{place}: {_of_system(error)}"
        return f"{place}: {type(error).__name__}: {error}"
    for one in _chain(error):
        if isinstance(one, OSError):
            return _of_system(one)
        for name in _DISK:
            if (said := os.strerror(getattr(errno, name))) in str(one):
                path = re.search(r'"(/[^"]+)"', str(one))
                where = f"{path[1]}: " if path else ""
                return f"{where}{said}; {_FIXES[getattr(errno, name)]}"
        if isinstance(one, MemoryError) or "RESOURCE_EXHAUSTED" in str(one):
            return (
                "out of memory; lower config.batch or the model, run fewer trials side"
                " by side with --max_lanes, or lay one on more devices with config.mesh"
            )
    return None


def missing(error: ImportError) -> str | None:
    """Says how to install what an import did not find; None for gnomon's own.

    >>> missing(ModuleNotFoundError("", name="flax.linen"))
    "the package 'flax' is not installed: pip install 'gnomon[experiments]'"
    """
    name = (error.name or "").partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or name in ("", "gnomon"):
        return None
    extra = EXTRAS.get(name)
    fix = f"pip install 'gnomon[{extra}]'" if extra else "install it"
    return f"the package {name!r} is not installed: {fix}"


def _of_system(error: OSError) -> str:
    if error.strerror is None:
        return str(error)
    where = f"{os.fspath(error.filename)}: " if error.filename else ""
    fix = _FIXES.get(error.errno or 0)
    return f"{where}{error.strerror}" + (f"; {fix}" if fix else "")


def _theirs(filename: str | None) -> bool:
    if not filename or filename.startswith("<"):
        return False
    if filename.startswith(_CONFIGS):
        return True
    return not filename.startswith((str(ROOT), *_INSTALLED)) and (
        "site-packages" not in filename
    )


def _place(error: BaseException) -> str | None:
    """The last line of a person's own code that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if _theirs(frame.filename)]
    return f"{theirs[-1].filename}:{theirs[-1].lineno}" if theirs else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and those it came from, or holds."""
    while error is not None:
        yield error
        if isinstance(error, BaseExceptionGroup):
            for part in error.exceptions:
                yield from _chain(part)
        error = error.__cause__ or error.__context__
