"""The update cost benchmark runs, compares like with like, and says where."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "update_cost.py"
COLUMNS = (
    "method parameters leaves adamw_ms method_ms ratio median_ratio goal temporary"
)


def run(*arguments):
    return subprocess.run(
        [sys.executable, SCRIPT, "--quick", *arguments], capture_output=True, text=True
    )


def test_quick_form_prints_the_table_and_writes_the_record(tmp_path):
    done = run("--methods=fadam,sgdp", f"--out={tmp_path}/cost.json")
    assert done.returncode == 0, done.stderr
    header, *lines = done.stdout.splitlines()
    assert header.split() == COLUMNS.split()
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


def test_an_unknown_method_is_refused_by_name(tmp_path):
    done = run("--methods=fadan", f"--out={tmp_path}/cost.json")
    assert done.returncode != 0
    assert "did you mean 'fadam'?" in done.stderr
    assert not (tmp_path / "cost.json").exists()
