r"""What stands in a cell of a run table, as text and back.

A cell is what it reads as: nothing, a number, true or false, else text. Text that would
read as one of the others is in JSON's quotes. So a table comes back as it was written,
and tables of others need no quotes at all.
"""

import json
import math
import re
from typing import Any

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_WORDS = {"nan": math.nan, "inf": math.inf, "infinity": math.inf}
_WORDS |= {f"-{word}": -math.inf for word in ("inf", "infinity")}
_WORDS |= {f"+{word}": math.inf for word in ("inf", "infinity")}
_SWITCHES = {"true": True, "false": False}
_MISSING = frozenset(("", "na", "n/a", "none", "null", "-", "<na>"))
_SUFFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "b": 1e9, "t": 1e12}
_COUNT = re.compile(r"([+-]?[\d.]+(?:[eE][+-]?\d+)?)\s*([kKmMgGbBtT]?)")


def read_cell(value: Any) -> Any:
    r"""A cell as a value.

    >>> [read_cell(text) for text in ("", "12", "1e-3", "-inf", "true", "Muon", '"12"')]
    [None, 12, 0.001, -inf, True, 'Muon', '12']
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if not text:
        return None
    if text.startswith('"') and text.endswith('"') and len(text) > 1:
        try:
            return json.loads(text)
        except ValueError:
            return value
    if text.lower() in _SWITCHES:
        return _SWITCHES[text.lower()]
    if _NUMBER.fullmatch(text):
        return int(text) if re.fullmatch(r"[+-]?\d+", text) else float(text)
    return _WORDS.get(text.lower(), value)


def write_cell(value: Any) -> str:
    r"""A value as a cell; a number that is not one is nothing.

    >>> [write_cell(value) for value in (None, float("nan"), float("inf"), 0.5, 3.0)]
    ['', '', 'Infinity', '0.5', '3']
    >>> [write_cell(value) for value in (True, "Muon", "12", "")]
    ['true', 'Muon', '"12"', '""']
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if math.isnan(value):
            return ""
        if math.isinf(value):
            return "Infinity" if value > 0 else "-Infinity"
        whole = float(value).is_integer() and abs(value) < 2**53
        return str(int(value)) if whole else repr(float(value))
    text = str(value)
    return (
        text if read_cell(text) == text and text.strip() == text else json.dumps(text)
    )


def as_text(value: Any) -> str | None:
    """A cell of a column of names; what is no text is written as it reads.

    >>> as_text("007"), as_text(7.0), as_text(""), as_text(float("nan"))
    ('007', '7', None, None)
    """
    if not isinstance(value, str):
        return write_cell(value) or None
    read = read_cell(value)
    return (read if isinstance(read, str) else value.strip()) or None


def as_number(value: Any, count: bool = False) -> float:
    """A cell of a column of numbers, NaN where there is none.

    Args:
      value: the cell.
      count: whether it may end in k, M, G or B, or T: thousands, millions, and so on.

    Raises:
      ValueError: it is no number.

    >>> as_number("130m", count=True), as_number("1.2B", count=True), as_number("n/a")
    (130000000.0, 1200000000.0, nan)
    """
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in _MISSING:
            return math.nan
        found = _COUNT.fullmatch(text.replace("_", "")) if count else None
        if found:
            return float(found[1]) * _SUFFIXES[found[2].lower()]
        value = read_cell(text)
    if value is None:
        return math.nan
    if isinstance(value, bool | str):
        raise ValueError(f"{value!r} is no number")
    return float(value)
