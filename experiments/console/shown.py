"""Strings from configs, tables and folders, made safe for where they are shown.

A label, a name or a message may hold anything. On a terminal a control character can
move the cursor or change the title; in Markdown a bar ends a cell and a bracket makes
a link; as part of a path, dots lead out of a folder.
"""

import html
import re
import unicodedata

# Control characters, surrogates, and what turns the direction of text around.
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MARKS = re.compile(
    r"[\\`*|~$]|\](?=[(\[:])|(?<!\w)_|_(?!\w)|^[#+=-](?=[\s#+=-])|(?<=:)//|(?<=www)\."
)
_NUMBERED = re.compile(r"^(\d+)([.)])(?=\s|$)")  # would begin a list
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ._+-]*")


def printable(text: object, keep: str = "") -> str:
    r"""A text with its control characters spelled out.

    Args:
      text: what to show.
      keep: characters to leave as they are, such as ``"\n"``.

    >>> print(printable("Adam\x1b[31m\nW"))
    Adam\x1b[31m\nW
    """
    return "".join(
        c
        if c in keep or unicodedata.category(c) not in _UNSEEN
        else c.encode("unicode_escape").decode()
        for c in str(text)
    )


def one_line(text: object, length: int = 1000) -> str:
    r"""A message as one line of bounded length.

    >>> one_line("shapes differ:\n  (2,)  and (3,)")
    'shapes differ: (2,) and (3,)'
    """
    line = printable(" ".join(str(text).split()))
    return line if len(line) <= length else line[: length - 1] + "…"


def markdown(text: object) -> str:
    r"""A text that Markdown shows as it is, in a paragraph or in a cell of a table.

    >>> print(markdown("a|b <i> [x](y) 1.0x [0.9, 1.1] max_lanes"))
    a\|b &lt;i&gt; [x\](y) 1.0x [0.9, 1.1] max_lanes
    """
    line = html.escape(printable(text), quote=False)
    line = _MARKS.sub(lambda found: "\\" + "\\".join(found[0]), line)
    return _NUMBERED.sub(r"\1\\\2", line)


def is_name(text: str) -> bool:
    """Whether a text is a plain file name: no folder, no leading dot.

    >>> [is_name(text) for text in ("study 2.b", "../x", "a/b", ".x", "")]
    [True, False, False, False, False]
    """
    return _NAME.fullmatch(text) is not None
