"""The update cost benchmark runs, compares like with like, and says where."""

import json

import pytest

from gnomon.experiments.config.resolve import ConfigError

COLUMNS = (
    "method parameters leaves adamw_ms method_ms ratio median_ratio goal temporary"
)


def test_quick_form_prints_the_table_and_writes_the_record(script, tmp_path):
    out = f"--out={tmp_path}/cost.json"
    printed = script("update_cost", "--quick", "--methods=fadam,sgdp", out)
    header, rule, *lines = printed.splitlines()
    assert header.split() == COLUMNS.split()
    assert set(rule) == {"-", " "}
    cases = [(m, "6,000", n) for n in "13" for m in ("fadam", "sgdp")]
    assert [tuple(line.split()[:3]) for line in lines] == cases

    record = json.loads((tmp_path / "cost.json").read_text())
    assert {"command", "date", "device", "cores", "load", "versions"} <= set(record)
    for row in record["rows"]:
        baseline, method = row["samples_ms"]["baseline"], row["samples_ms"]["method"]
        assert row["ratio"] == pytest.approx(min(method) / min(baseline))
        assert len(method) == len(baseline) == 2
    goals = {row["method"]: row["goal"] for row in record["rows"]}
    assert goals == {"fadam": 1.5, "sgdp": None}


def test_an_unknown_method_is_refused_by_name(script, tmp_path):
    out = f"--out={tmp_path}/cost.json"
    with pytest.raises(ConfigError, match="did you mean 'fadam'"):
        script("update_cost", "--quick", "--methods=fadan", out)
    assert not (tmp_path / "cost.json").exists()
