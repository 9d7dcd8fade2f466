"""What is known of the runs of a report, beside their columns."""

from typing import NamedTuple

from gnomon.experiments.console.progress import format_count
from gnomon.experiments.drawing.ticks import flops


class Source(NamedTuple):
    """Where runs come from, as far as it changes what may be said.

    Attributes:
      unit: What compute is counted in: ``FLOP``, ``tokens`` or ``steps``.
      given: Whether runs are taken as tuned, for want of grids.
      swept: Whether a sweep of gnomon's made them.
      counted: How compute was counted, a sentence; "" for a sweep's.
    """

    unit: str = "FLOP"
    given: bool = False
    swept: bool = True
    counted: str = ""

    def amount(self, compute: float) -> str:
        """Compute in words.

        >>> SWEEP.amount(3e9), Source(unit="steps").amount(3250.0)
        ('3 GFLOP', '3.25k steps')
        """
        if self.unit == "FLOP":
            return f"{flops(compute)}FLOP"
        return f"{format_count(compute)} {self.unit}"


SWEEP = Source()
