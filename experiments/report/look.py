"""What the pictures of a report share: sizes, words, and each optimizer's look."""

from collections.abc import Sequence
from typing import NamedTuple

from gnomon.experiments.drawing.colors import BASE, COLORS

PANEL, WIDE = (350, 270), (420, 300)  # widths and heights
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")


class Look(NamedTuple):
    """An optimizer's color and marker, the same in every figure."""

    color: str
    marker: str


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """Colors and markers for the optimizers, the baseline first.

    The baseline is dark gray, so that the eye goes to what is compared with it.

    >>> looks(["AdamW", "AdamP"])["AdamP"]
    Look(color='#0072b2', marker='s')
    """
    colors = (BASE, *(COLORS * (1 + len(labels) // len(COLORS))))
    markers = MARKERS * (1 + len(labels) // len(MARKERS))
    return {
        label: Look(color, marker)
        for label, color, marker in zip(labels, colors, markers, strict=False)
    }


def words_of(metric: str) -> str:
    """A metric's name as on an axis.

    >>> words_of("train_loss")
    'training loss'
    """
    return metric.replace("_", " ").replace("train ", "training ")
