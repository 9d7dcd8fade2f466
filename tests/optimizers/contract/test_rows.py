"""Every public optimizer is under contract: by a row, or as a wrapper of optimizers."""

from gnomon import optimizers
from gnomon.optimizers.mechanisms.probe import slope
from gnomon_contract import collect
from gnomon_contract.public import INNERS, PUBLIC


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
        and slope(public.build()) <= 0
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
