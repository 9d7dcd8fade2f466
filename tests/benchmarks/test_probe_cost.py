"""The probe cost benchmark runs and reports the share it defines."""

import json
import statistics

import pytest

COLUMNS = "tier period step_ms tier_ms call share goal keys"


def test_quick_form_prints_the_table_and_writes_the_record(script, tmp_path):
    printed = script("probe_cost", "--quick", f"--out={tmp_path}/cost.json")
    header, rule, *lines = printed.splitlines()
    assert header.split() == COLUMNS.split()
    assert set(rule) == {"-", " "}
    assert [line.split()[:2] for line in lines] == [["free", "20"], ["cheap", "50"]]

    record = json.loads((tmp_path / "cost.json").read_text())
    assert {"command", "date", "device", "cores", "load", "versions"} <= set(record)
    step = statistics.median(record["step_samples_ms"])
    free, cheap = record["rows"]
    taken = [statistics.median(row["samples_ms"]) for row in (free, cheap)]
    assert free["share"] == pytest.approx(100 * (taken[0] - step) / step / 20)
    assert cheap["share"] == pytest.approx(100 * taken[1] / step / 50)
    assert free["keys"] > cheap["keys"] > 0
