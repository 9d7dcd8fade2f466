"""Pictures are in the page's colors, say what they show, and do not clash."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from gnomon.experiments.drawing.canvas import canvas, standalone, to_svg
from gnomon.experiments.drawing.colors import CARD, COLORS, INK, NAMED


@pytest.fixture(scope="module")
def svg():
    with canvas(300, 200, margins=(30, 10, 20, 10)) as (figure, axes):
        for number, color in enumerate((*COLORS, INK)):
            axes.plot([0, 1], [number, 1 / 3], "o-", color=color, mfc=CARD, gid="line")
        axes.fill_between([0, 1], [0, 1], [2, 3], color=COLORS[0], alpha=0.2)
        return to_svg(figure, "one", 'A "title" <b>', {"line": ("a <line>", "whole")})


def test_every_color_follows_the_readers_theme(svg):
    """None is left as it was drawn, and each is one that both themes define."""
    assert not re.findall(r"#[0-9a-f]{6}", re.sub(r"var\(--\w+,#\w{6}\)", "", svg))
    names = set(re.findall(r"var\(--(\w+),", svg))
    assert {f"k{n}" for n in range(len(COLORS))} | {"ink", "card"} <= names
    alone = standalone(svg)
    for name in names:
        assert re.findall(rf"--{name}: (#\w+)", alone) == list(NAMED[name])


def test_a_picture_is_labeled_and_its_ids_are_its_own(svg):
    assert svg.startswith("<svg ")
    root = ElementTree.fromstring(standalone(svg))
    assert root.get("aria-label") == 'A "title" <b>'
    groups = [e for e in root.iter() if e.get("class") == "trace whole"]
    assert [group[0].text for group in groups] == ["a <line>"] * (len(COLORS) + 1)
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(name.startswith("one-") for name in ids)
    links = re.findall(r'(?:href="|url\()#([^")]+)', svg)
    assert links
    assert set(links) <= set(ids)


def test_a_point_lies_where_the_margins_put_it(svg):
    """Digits that nobody sees are left out, and no more than those."""
    path = re.search(r'<g class="trace whole">.*?<path d="M([^"]*)"', svg, re.DOTALL)
    (x, _), (end, _) = np.array([p.split() for p in path[1].split("L")], float)
    pad = 260 / 1.1 * 0.05  # Matplotlib's own margin on each side
    np.testing.assert_allclose([x, end], [30 + pad, 290 - pad], atol=0.006)
    assert not re.search(r"\d\.\d{3}", svg)
