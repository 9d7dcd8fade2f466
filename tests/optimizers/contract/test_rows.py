"""Every public optimizer is under contract: by a row, or as a wrapper of optimizers."""

import sys

from gnomon import optimizers
from gnomon_contract import collect
from gnomon_contract.public import INNERS, PUBLIC, slope_of


def without_a_row(rows):
    """The names of those that no row builds.

    Wrappers are built around ``INNERS``. A direction, whose updates climb, is part of
    an optimizer that has a row.
    """
    found = {name for row in rows for name in row.covers}
    made = [row.make for row in rows]
    return [
        public.name
        for public in PUBLIC
        if not (public.inside or public.make in made or public.name in found)
        and slope_of(public) <= 0
    ]


def test_every_public_optimizer_has_a_row():
    assert INNERS.keys() == {"sgd", "adamw", "adamp", "momo"}
    rows = collect.rows()
    assert without_a_row(rows) == []
    for name in ("adamp", "sania", "adamw_8bit"):
        others = [row for row in rows if row.make is not getattr(optimizers, name)]
        others = [row for row in others if name not in row.covers]
        assert name in without_a_row(others)


def test_rows_cover_what_is_public():
    covered = {name for row in collect.rows() for name in row.covers}
    assert sorted(covered - {public.name for public in PUBLIC}) == []


def without_a_line(rows):
    """Methods of rows that no ``RECOMMENDED`` of their module is about.

    Mechanisms have none: what is around what is the choice of who uses them.
    """
    names = {n for row in rows for n in (row.make.__name__, *row.covers)}
    found = []
    for name in sorted(names & {public.name for public in PUBLIC}):
        module = sys.modules[getattr(optimizers, name).__module__]
        lines = getattr(module, "RECOMMENDED", {})
        paths = [settings.get("name", "") for settings in lines.values()]
        about = {*lines, *(path.rpartition(".")[2] for path in paths)}
        if name not in about and ".mechanisms." not in module.__name__:
            found.append(name)
    return found


def test_every_method_has_recommended_settings(monkeypatch):
    rows = collect.rows()
    assert without_a_line(rows) == []
    monkeypatch.delattr("gnomon.optimizers.polyak.alr.RECOMMENDED")
    monkeypatch.setattr("gnomon.optimizers.norms.lawn.RECOMMENDED", {"warm": {}})
    assert without_a_line(rows) == ["alr_hb", "alr_mag", "alr_shb", "alr_smag", "lawn"]
