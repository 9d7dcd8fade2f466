"""The results page: stored tables are the sweep's, and every row says its origin."""

import numpy as np
import pytest

from gnomon.experiments.leaderboard import add, build
from gnomon.experiments.records.files import read_json, write_json
from gnomon.experiments.records.runs import load_runs, table
from gnomon.experiments.records.tables import read, store
from gnomon.experiments.report import write_report
from gnomon.experiments.report.analysis import analyze


@pytest.fixture
def sweep(tmp_path):
    """A finished sweep of three optimizers, B planted 1.3 times as fast as A."""
    workdir = tmp_path / "sweep"
    rng = np.random.default_rng(0)
    luck = 0.05 * rng.standard_normal(4)
    ids = []
    for label, gain in (("A", 1.0), ("B", 1.3), ("C", 1.0)):
        for steps in (70, 100, 140) if label == "A" else (100,):
            for rate in (1e-3, 2e-3, 4e-3):
                for seed in range(4):
                    ids.append(f"{len(ids):012d}")  # digits alone: still a name
                    loss = 3 - 0.3 * np.log(steps * gain) + luck[seed]
                    loss += 0.1 * np.log(rate / 2.2e-3) ** 2
                    loss += 0.001 * rng.standard_normal()
                    folder = workdir / "trials" / ids[-1]
                    optimizer = {"name": "o", "learning_rate": rate}
                    if label == "C":
                        optimizer["b1"] = 0.9  # a field the others lack
                    config = {
                        "label": label,
                        "seed": seed,
                        "steps": steps,
                        "model": {"name": "m", "width": 16},
                        "optimizer": optimizer,
                        "report": {"baseline": "A", "metric": "validation_loss"},
                        "tuning": {"widen": 2, "interpolate": True},
                    }
                    result = {
                        "status": "finished",
                        "final": {"validation_loss": loss},
                        "parameters": 1000,
                        "compute": 1e6 * steps,
                        "device": "a chip",
                        "seconds": 2.0,
                    }
                    write_json(folder / "config.json", config)
                    write_json(folder / "result.json", result)
    command = ["/x/sweep.py", "--config=study.py"]
    write_json(workdir / "sweep.json", {"command": command, "trials": ids})
    return workdir


def test_a_stored_table_is_the_sweeps_to_the_bit(sweep, tmp_path):
    stored = read(store(sweep, tmp_path, "mine"))
    for name, column in table(load_runs(sweep)).items():
        if not name.startswith(("report.", "tuning.")):
            np.testing.assert_array_equal(stored.columns[name], column, err_msg=name)
    assert stored.report["interpolate"] is True
    again = analyze(stored.columns, "A", "validation_loss", True)
    first = analyze(table(load_runs(sweep)), "A", "validation_loss", True)
    assert [s.log_interval for s in again.summaries] == [
        s.log_interval for s in first.summaries
    ]


def test_the_page_has_a_row_an_optimizer_with_command_device_and_time(sweep, tmp_path):
    write_report(sweep)
    docs = tmp_path / "docs"
    add(sweep, docs, "mine")
    text = build(docs).read_text()
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    rows = {line.split(" | ")[0].strip("| "): line for line in lines[2:]}
    assert next(iter(rows)) == "B"  # the fastest comes first
    assert "1.3" in rows["B"]
    assert "faster at 95 %" in rows["B"]
    assert "the baseline" in rows["A"]
    assert "no difference shown" in rows["C"]
    for fact in (
        "- command: python -m gnomon.experiments.sweep --config=study.py",
        "- device: a chip",
        "- training time: 2m00s over all trials",
    ):
        assert fact in text
    for name in ("mine.csv", "mine.html", "mine.svg"):
        assert f"results/{name}" in text
        assert (docs / "results" / name).exists()
    build(docs)
    assert (docs / "leaderboard.md").read_text() == text


def test_an_unfinished_sweep_and_a_torn_table_are_refused(sweep, tmp_path):
    path = store(sweep, tmp_path, "mine")
    lines = path.with_suffix(".csv").read_text().splitlines(keepends=True)
    path.with_suffix(".csv").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="store the sweep again"):
        read(path)
    trial = read_json(sweep / "sweep.json")["trials"][0]
    (sweep / "trials" / trial / "result.json").unlink()
    with pytest.raises(ValueError, match="run the sweep's command again"):
        store(sweep, tmp_path, "mine")
    with pytest.raises(ValueError, match="--add=WORKDIR"):
        build(tmp_path / "empty")
