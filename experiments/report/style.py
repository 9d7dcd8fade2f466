"""How the figures look: colors, ticks, and SVG that is the same every time."""

import contextlib
import io
import re
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colors, told apart in the common forms of color blindness; the
# baseline is dark gray, so that the eye goes to what is compared with it.
BASELINE = "#4a4f57"
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a6d00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<")
INK, FAINT, GRID = "#22262b", "#6b727c", "#e7e9ec"
WARNING = "#a3341f"

_PARAMETERS: Any = {
    "svg.fonttype": "none",  # text stays text: it can be selected, and scales
    "svg.hashsalt": "gnomon",
    "text.parse_math": False,  # a dollar in a label is a dollar
    "font.family": "sans-serif",
    "font.size": 11.0,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.labelsize": 11.0,
    "axes.edgecolor": "#9aa1ab",
    "axes.labelcolor": FAINT,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": "#9aa1ab",
    "ytick.color": "#9aa1ab",
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


class Look(NamedTuple):
    """An optimizer's color and marker, the same in every figure."""

    color: str
    marker: str


def looks(labels: Sequence[str]) -> dict[str, Look]:
    """Colors and markers for the optimizers, the baseline first.

    >>> looks(["AdamW", "AdamP"])["AdamP"]
    Look(color='#0072b2', marker='s')
    """
    colors = (BASELINE, *(COLORS * (1 + len(labels) // len(COLORS))))
    markers = MARKERS * (1 + len(labels) // len(MARKERS))
    return {
        label: Look(color, marker)
        for label, color, marker in zip(labels, colors, markers, strict=False)
    }


@contextlib.contextmanager
def canvas(width: int, height: int) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes; a unit of its size is a CSS pixel."""
    with matplotlib.rc_context(_PARAMETERS):
        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        yield figure, figure.add_subplot()


def to_svg(figure: Figure, name: str, title: str) -> str:
    """Renders a figure to an SVG element to put into a page.

    Args:
      figure: The figure.
      name: Distinct in the page; ids start with it, so that figures do not clash.
      title: What the picture shows, for readers who cannot see it.
    """
    buffer = io.StringIO()
    none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context(_PARAMETERS), warnings.catch_warnings():
        # A reader's own font has what Matplotlib's lacks, since text stays text; and a
        # label that is too long for its picture is cut off or overlaps.
        warnings.filterwarnings("ignore", "Glyph ", UserWarning)
        warnings.filterwarnings("ignore", "constrained_layout not applied", UserWarning)
        figure.savefig(buffer, format="svg", metadata=none, transparent=True)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    # The page's own size rules apply; the view box keeps the proportions.
    head, rest = svg.split(">", 1)
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return f'{head} role="img" aria-label="{label}">{rest}'.strip()


def short(value: float) -> str:
    """A number as a person writes it on an axis.

    >>> [short(v) for v in (0.003, 1e-4, 0.03, 1.0, 30.0, 0.0031623)]
    ['3e-3', '1e-4', '3e-2', '1', '30', '3.16e-3']
    >>> [short(v) for v in (float("inf"), float("-inf"), float("nan"))]
    ['inf', '-inf', 'nan']
    """
    if not np.isfinite(value):
        return f"{value:g}"
    if 0.1 <= abs(value) < 1e4 or value == 0:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{float(mantissa):g}e{int(exponent)}"


def flops(value: float) -> str:
    """FLOPs with a metric prefix.

    >>> [flops(v) for v in (3e9, 1e12, 2.5e15)]
    ['3 G', '1 T', '2.5 P']
    """
    for power, prefix in (
        (18, "E"),
        (15, "P"),
        (12, "T"),
        (9, "G"),
        (6, "M"),
        (3, "k"),
    ):
        if value >= 10**power:
            return f"{value / 10**power:.3g} {prefix}"
    return f"{value:.3g}"


def log_ticks(low: float, high: float) -> list[float]:
    """Tick positions at 1 and 3 times powers of ten, or finer on short ranges.

    >>> [short(v) for v in log_ticks(2e-4, 2e-2)]
    ['3e-4', '1e-3', '3e-3', '1e-2']
    """
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    ticks: list[float] = []
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [float(f"{d}e{k}") for k in decades for d in digits]
        ticks = [t for t in ticks if low <= t <= high]
        if len(ticks) >= 3:
            return ticks
    return ticks or [low, high]


def log_axis(axis: object, ticks: Sequence[float], words: Sequence[str]) -> None:
    """Puts just these ticks on a matplotlib axis."""
    axis.set_ticks(ticks, words)  # type: ignore[attr-defined]
    axis.set_ticks([], minor=True)  # type: ignore[attr-defined]
