"""The benchmark of imports: each statement in a process of its own, beside optax."""

import json
import sys


def test_a_process_times_its_statement(module):
    assert 0 < module("import_time").sample("pass") < 0.01
    assert module("import_time").sample("time.sleep(0.05)") >= 0.05


def test_every_statement_has_a_row(module, monkeypatch, tmp_path, capsys):
    benchmark = module("import_time")
    monkeypatch.setattr(benchmark, "sample", lambda s: 3.0 if "adamp" in s else 2.0)
    path = tmp_path / "record.json"
    monkeypatch.setattr(sys, "argv", ["import_time.py", f"--output={path}"])
    benchmark.main()
    rows = {row["statement"]: row for row in json.loads(path.read_text())["rows"]}
    assert tuple(rows) == benchmark.STATEMENTS
    assert rows["import optax"]["ratio"] == rows["import optax"]["median_ratio"] == 1
    assert rows["from gnomon.optimizers import adamp"]["ratio"] == 1.5
    printed = capsys.readouterr().out
    assert all(statement in printed for statement in rows)
