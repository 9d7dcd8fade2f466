"""Pictures by Matplotlib, as SVG that is the same every time."""

import contextlib
import html
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from gnomon.experiments.drawing.colors import (
    GRID,
    INK,
    LINE,
    NAMED,
    SOFT,
    variable,
    variables,
)

_LIGHT = re.compile("|".join(light for light, _ in NAMED.values()))
_PARAMETERS: Any = {
    "svg.fonttype": "none",  # text stays text: it can be selected, and scales
    "svg.hashsalt": "gnomon",
    "text.parse_math": False,  # a dollar in a label is a dollar
    "font.family": "sans-serif",
    "font.size": 11.0,
    "axes.titlesize": 12.0,
    "axes.titleweight": "bold",
    "axes.labelsize": 11.0,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.titlecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
}


@contextlib.contextmanager
def canvas(
    width: int, height: int, margins: tuple[float, float, float, float] | None = None
) -> Iterator[tuple[Figure, Axes]]:
    """A figure with one pair of axes; a unit of its size is a CSS pixel.

    Args:
      width: of the picture.
      height: of the picture.
      margins: around the axes: left, right, bottom, top. None takes what the words
        beside them need, which several pictures of one size do not share.
    """
    with matplotlib.rc_context(_PARAMETERS):
        figure = Figure(figsize=(width / 72, height / 72))
        axes = figure.add_subplot()
        if margins is None:
            figure.set_layout_engine("constrained")
        else:
            left, right, bottom, top = margins
            figure.subplots_adjust(
                left=left / width,
                right=1 - right / width,
                bottom=bottom / height,
                top=1 - top / height,
            )
        yield figure, axes


def to_svg(
    figure: Figure,
    name: str,
    title: str,
    traces: Mapping[str, tuple[str, str]] | None = None,
) -> str:
    """Renders a figure to an SVG element to put into a page.

    Args:
      figure: The figure.
      name: Distinct in the page; ids start with it, so that figures do not clash.
      title: What the picture shows, for readers who cannot see it.
      traces: By the ``gid`` of an artist, the words that are shown where a reader
        points at it, and its classes.
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
    svg = re.sub(r"<metadata>.*?</metadata>\s*|<!--.*?-->\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r"<[^<>]*>", lambda tag: _tidy(tag[0]), svg)
    for gid, (words, style) in (traces or {}).items():
        group = f'<g class="trace {style}"><title>{html.escape(words)}</title>'
        svg = svg.replace(f'<g id="{gid}">', group)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="|url\()#', rf"\1#{name}-", svg)
    # The page's own size rules apply; the view box keeps the proportions.
    head, rest = svg.split(">", 1)
    head = re.sub(r' (width|height|xmlns|xmlns:xlink|version)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{html.escape(title)}">{rest}'.strip()


def log_ticks(low: float, high: float) -> list[float]:
    """Tick positions at 1 and 3 times powers of ten, or finer on short ranges.

    By hand: Matplotlib's `LogLocator` takes the digits as given, and leaves a range
    within a decade without a label.

    >>> log_ticks(2e-4, 2e-2), log_ticks(0.92, 1.11)
    ([0.0003, 0.001, 0.003, 0.01], [0.95, 1.0, 1.05, 1.1])
    >>> log_ticks(1e-9, 1e3)
    [1e-09, 1e-07, 1e-05, 0.001, 0.1, 10.0, 1000.0]
    """
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        stride = -(-(len(decades) - 1) // 6)
        ticks = [float(f"{d}e{k}") for k in decades[:: stride or 1] for d in digits]
        ticks = [t for t in ticks if low <= t <= high]
        if len(ticks) >= 3:
            return ticks
    return even_ticks(low, high)


def even_ticks(low: float, high: float) -> list[float]:
    """Tick positions at even distances."""
    found = MaxNLocator(5, steps=(1, 2, 2.5, 5, 10)).tick_values(low, high)
    return [float(f"{tick:.10g}") for tick in found if low <= tick <= high]


def set_ticks(axis: Axis, ticks: Sequence[float], words: Sequence[str]) -> None:
    """Puts just these ticks on an axis."""
    axis.set_ticks(ticks, words)
    axis.set_ticks([], minor=True)


def standalone(svg: str) -> str:
    """A picture of a page as a file of its own, which follows the theme too."""
    head, rest = svg.split(">", 1)
    # On paper of its own, for the page around it may not follow the theme.
    styles = f"{variables()}svg {{ background: var(--card); }}"
    spaces = (
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    )
    return f"{head} {spaces}><style>{styles}</style>{rest}"


def _tidy(tag: str) -> str:
    """A tag with the page's colors and with no more digits than can be seen."""
    tag = _LIGHT.sub(lambda color: variable(color[0]), tag)
    return re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.4g}", tag)
