"""How the layers of a model are told apart: a color by kind, fainter with depth."""

import re
from collections.abc import Sequence
from typing import NamedTuple

from gnomon.experiments.drawing.colors import COLORS


class Look(NamedTuple):
    """How a layer is drawn: a color for its kind, an opacity for its depth."""

    color: str
    style: str
    opacity: float


def kind(layer: str) -> str:
    """What a layer shares with those at other depths.

    >>> kind("blocks/11/mlp/up")
    'blocks/*/mlp/up'
    """
    return re.sub(r"\d+", "*", layer)


def natural(layer: str) -> list[tuple[int, int | str]]:
    """A key that sorts block 2 before block 10.

    >>> sorted(["b/10", "b/2"], key=natural)
    ['b/2', 'b/10']
    """
    parts = re.split(r"(\d+)", layer)
    return [(0, int(part)) if part.isdigit() else (1, part) for part in parts]


def looks(layers: Sequence[str]) -> dict[str, Look]:
    """Colors by kind, fainter with depth; when they are used up they repeat, dotted.

    >>> looks(["blocks/0/up", "blocks/1/up", "embed"])["blocks/1/up"]
    Look(color='#0072b2', style='', opacity=0.45)
    """
    kinds = list(dict.fromkeys(map(kind, layers)))
    found = {}
    for number, name in enumerate(kinds):
        members = [layer for layer in layers if kind(layer) == name]
        for depth, layer in enumerate(members):
            opacity = 1 - 0.55 * depth / max(len(members) - 1, 1)
            style = "" if number < len(COLORS) else "dotted"
            color = COLORS[number % len(COLORS)]
            found[layer] = Look(color, style, round(opacity, 2))
    return {layer: found[layer] for layer in layers}
