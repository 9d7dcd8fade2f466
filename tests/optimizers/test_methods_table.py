"""The table of methods in the documentation is that of the code."""

import csv

import methods_table
import pytest

from gnomon_contract import Verified, collect


def test_the_table_is_current_and_complete():
    """``make format`` writes it."""
    names, verified = methods_table.methods(), collect.verified()
    text = methods_table.table(names, verified)
    assert methods_table.TABLE.read_text() == text
    rows = {row["name"]: row for row in csv.DictReader(text.splitlines())}
    assert rows.keys() >= {"adamp", "lars", "novograd", "scale_by_mean_slope"}
    assert "scale_by_adamp" not in rows
    assert rows["sgdw"]["module"] == "gnomon.optimizers.sgdp"
    assert rows["adamp"]["paper"] == "https://arxiv.org/abs/2006.08217"
    with pytest.raises(ValueError, match=r"methods \['lars'\] are missing"):
        methods_table.table(names, {n: v for n, v in verified.items() if n != "lars"})
    with pytest.raises(ValueError, match=r"\['larsen'\] are none"):
        methods_table.table(names, verified | {"larsen": Verified("")})
