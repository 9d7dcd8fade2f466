"""Tables on a terminal.

By hand, in a few lines: the tables hold text that is already formatted, and neither
tabulate nor rich sets a last row of totals apart.
"""

from collections.abc import Sequence


def table(
    rows: Sequence[Sequence[str]], words: int | None = None, total: bool = False
) -> str:
    """Rows as aligned columns under a rule.

    Args:
      rows: a heading, then the body; all of one length.
      words: how many columns, from the left, hold words; the others hold numbers and
        are aligned to the right. None for all.
      total: whether the last row is one of totals, set apart by a rule.

    Returns:
      The table, without spaces at the ends of lines or a newline at its end.

    Example:
      >>> print(table([["a", "loss"], ["AdamW", "2.5"]]))
      a      loss
      -----  ----
      AdamW  2.5
      >>> print(table([["a", "n"], ["x", "9"], ["all", "10"]], words=1, total=True))
      a     n
      ---  --
      x     9
      ---  --
      all  10
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rule = ["-" * width for width in widths]
    lines = [rows[0], rule, *rows[1:]]
    if total:
        lines.insert(-1, rule)
    left = len(widths) if words is None else words
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
