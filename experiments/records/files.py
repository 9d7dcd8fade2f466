"""Files that are whole or absent, and JSON that keeps what is not finite."""

import contextlib
import glob
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

import numpy as np

from gnomon.experiments.config.resolve import ConfigError

PathLike = str | os.PathLike[str]
_SPELLED = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_NUMBERS = {spelled: float(number) for number, spelled in _SPELLED.items()}


def jsonable(value: Any) -> Any:
    r"""Converts a value to what JSON can say, non-finite floats to text.

    JSON has no NaN and no infinity, and a reader in another language refuses a file
    that has them bare. A number that is not finite therefore becomes the text
    ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, from which `from_json` and most
    languages' own conversions read the number again. A text that spells one of these
    is told apart by a backslash before it.

    Args:
      value: mappings, sequences, sets (sorted), strings, numbers, booleans, `None`,
        paths, NumPy scalars and arrays, and whatever NumPy can convert, such as a
        JAX array. Keys of mappings become strings.

    Returns:
      The same value in dictionaries, lists, strings, ints, floats, bools and `None`.

    Raises:
      TypeError: If a value is none of these. The message names where it lies.

    Example:
      >>> jsonable({"loss": float("nan"), "widths": (np.int32(8), np.float32(0.5))})
      {'loss': 'NaN', 'widths': [8, 0.5]}
    """
    return _jsonable(value, "value")


def from_json(value: Any) -> Any:
    r"""What `jsonable` was given, from what JSON says.

    Tuples and sets come back as lists, arrays as lists, keys as text.

    Example:
      >>> from_json({"loss": "NaN", "rates": ["-Infinity", 1.5], "label": "\\NaN"})
      {'loss': nan, 'rates': [-inf, 1.5], 'label': 'NaN'}
    """
    if isinstance(value, dict):
        return {key: from_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [from_json(item) for item in value]
    if isinstance(value, str):
        escaped = value.startswith("\\") and value.lstrip("\\") in _NUMBERS
        return value[1:] if escaped else _NUMBERS.get(value, value)
    return value


def _jsonable(value: Any, where: str) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return "\\" + value if value.lstrip("\\") in _NUMBERS else value
    # Built-in subclasses (enums, str-like ints) are reduced to the plain type.
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _SPELLED[str(float(value))]
    if isinstance(value, Mapping):
        return {str(k): _jsonable(v, f"{where}[{k!r}]") for k, v in value.items()}
    if isinstance(value, Set):
        return [_jsonable(v, where) for v in sorted(value)]
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_jsonable(v, f"{where}[{i}]") for i, v in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__array__") or isinstance(value, np.generic):
        return _array(np.asarray(value), where)
    raise TypeError(f"{where} is of type {type(value).__name__}: not JSON")


def _array(array: np.ndarray, where: str) -> Any:
    # bfloat16 and its kin are of kind "V" and only become Python numbers as doubles.
    if array.dtype.kind == "V" and array.dtype.names is None:
        array = array.astype(np.float64)
    if array.dtype.kind not in "biufUS":
        raise TypeError(f"{where} is of dtype {array.dtype}: not JSON")
    return _jsonable(array.tolist(), where)


def write_text(path: PathLike, text: str) -> None:
    """Writes a text file as UTF-8, at once like `write_bytes`."""
    write_bytes(path, text.encode())


def write_bytes(path: PathLike, *parts: bytes | bytearray) -> None:
    """Writes a file at once: after a crash it is the old file or the new one.

      The parts go to a temporary file of the same folder, reach the disk, and are
      renamed over `path`; the folder's own entry is then brought to the disk too.
      Missing folders are created.

      Args:
        path: where to write.
    *parts: the whole content, one part after another.
    """
    target = Path(path)
    make_folder(target.parent)
    # Unique for each writer, so that two of them never share a half-written file.
    temporary = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(temporary, "xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        # On a disk that fails, the first error is the one to tell.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def make_folder(folder: PathLike) -> None:
    """Creates a folder and those above it that are missing; their names are synced."""
    folder = Path(folder)
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        new.mkdir(exist_ok=True)
        sync_folder(new.parent)


def clean(path: PathLike) -> None:
    """Removes what writers of a file that were killed in `write_bytes` left behind.

    Call it only with a lock that every writer of the file holds: a living writer's
    temporary file looks the same.
    """
    target = Path(path)
    for left in target.parent.glob(f".{glob.escape(target.name)}.*.tmp"):
        left.unlink(missing_ok=True)


def sync_folder(folder: PathLike) -> None:
    """Brings the names in a folder to the disk, such as that of a renamed file."""
    _sync(folder)


def _sync(path: PathLike) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: PathLike) -> None:
    """Brings every file and every name below a folder to the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            _sync(os.path.join(parent, name))
        _sync(parent)


def write_json(path: PathLike, obj: Any) -> None:
    """Writes an object as JSON, at once like `write_text`, by way of `jsonable`.

    Args:
      path: where to write.
      obj: the object; its non-finite floats are written as `jsonable` spells them.

    Raises:
      TypeError: If the object holds what JSON cannot. Nothing is written then.
    """
    text = json.dumps(jsonable(obj), indent=2, allow_nan=False, ensure_ascii=False)
    write_text(path, text + "\n")


def read_json(path: PathLike) -> Any:
    """Reads a JSON file, its numbers as `from_json` reads them.

    Args:
      path: what to read.

    Raises:
      FileNotFoundError: If there is no such file.
      ConfigError: If the file is not JSON. The message names the file and the fix.
    """
    text = Path(path).read_bytes()
    try:
        return from_json(json.loads(text))
    except (ValueError, RecursionError) as error:
        raise _damaged(path, f"is not valid JSON: {error}") from error


def read_object(path: PathLike, **kinds: type) -> dict[str, Any]:
    """Reads a JSON file that must hold an object with certain fields.

    Args:
      path: what to read.
      **kinds: the type of each field that must be there.

    Raises:
      FileNotFoundError: If there is no such file.
      ConfigError: If it holds anything else. The message names the file and the fix.
    """
    found = read_json(path)
    if not isinstance(found, dict):
        raise _damaged(path, "is not valid: it must hold a JSON object")
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind):
            raise _damaged(path, f"is not valid: its field {name!r} is not as written")
    return found


def _damaged(path: PathLike, what: str) -> ConfigError:
    return ConfigError(
        f"{os.fspath(path)} {what}; delete the file and run the same command again"
    )
