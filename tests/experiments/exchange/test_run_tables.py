"""Runs of anyone: a table comes back as it was, and claims no more than it tells."""

import json

import numpy as np
import pytest

from gnomon.experiments import report
from gnomon.experiments.config import defaults, plain
from gnomon.experiments.config.fields import LEFT_OUT
from gnomon.experiments.exchange.export import export
from gnomon.experiments.exchange.formats import WRITERS, read_cells, write_cells
from gnomon.experiments.exchange.schema import is_read
from gnomon.experiments.exchange.table import load_table
from gnomon.experiments.exchange.values import read_cell
from gnomon.experiments.leaderboard import add, build
from gnomon.experiments.records.files import read_json, write_json
from gnomon.experiments.records.runs import flatten, load_runs, table
from gnomon.experiments.records.tables import read, run_table
from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.report.differences import differences
from gnomon.experiments.report.foreign import material, write_table_report
from gnomon.experiments.report.text import verdict_lines
from gnomon.experiments.report.verdict import notes

RATES = (1e-3, 2e-3, 4e-3, 8e-3)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """A finished sweep; its configs hold what a cell of text may be mistaken for."""
    workdir = tmp_path_factory.mktemp("sweep")
    ids = []
    for label, gain in (("12", 1.0), ('B, "b"', 1.3)):
        for steps in (100, 200) if label == "12" else (100,):
            for rate in RATES:
                for seed in range(2):
                    ids.append(f"{len(ids):012d}")
                    loss = 3 - 0.3 * np.log(steps * gain) + 0.05 * seed
                    loss += 0.1 * np.log(rate / 2.2e-3) ** 2
                    diverged = rate == RATES[-1] and seed == 1
                    optimizer = {"name": "o", "learning_rate": rate, "bound": np.inf}
                    optimizer["nesterov"] = label == "12"
                    config = {
                        "label": label,
                        "seed": seed,
                        "steps": steps,
                        "batch": 4,
                        "log_every": 7,
                        "model": {"name": "m", "width": 8},
                        "data": {"name": "d"},
                        "schedule": {"name": "s", "word": "-"},
                        "optimizer": optimizer,
                        "static": [8],
                        "parameters": {"dtype": ""},
                        "report": {"baseline": "12", "metric": "validation_loss"},
                        "tuning": {"widen": 2, "interpolate": True},
                    }
                    final = {"validation_loss": np.inf if diverged else loss}
                    final |= {"validation_accuracy": 0.5}
                    result = {
                        "status": "diverged" if diverged else "finished",
                        "final": final,
                        "parameters": 1000,
                        "compute": 1e6 * steps,
                        "units": 4.0 * steps,
                        "device": "a chip",
                        "versions": {"jax": "1"},
                        "data": {"name": "d", "fingerprint": "ab"},
                        "seconds": 2.0,
                    }
                    folder = workdir / "trials" / ids[-1]
                    write_json(folder / "config.json", config)
                    write_json(folder / "result.json", result)
                    curve = [
                        {"step": t, "validation_loss": loss + 1 - t / steps}
                        for t in range(20, steps + 1, 20)
                    ]
                    lines = "".join(json.dumps(row) + "\n" for row in curve)
                    (folder / "metrics.jsonl").write_text(lines)
    write_json(workdir / "sweep.json", {"command": ["sweep.py"], "trials": ids})
    return workdir


@pytest.fixture(scope="module")
def reported(sweep):
    return report.write_report(sweep), read_json(sweep / "report.json")


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_a_table_comes_back_as_it_was(sweep, tmp_path, ending):
    path = tmp_path / f"t.{ending}"
    runs = load_runs(sweep)
    export(path, runs, "validation_loss")
    columns = load_table(path).columns
    left = {"log_every", "report.metric"}
    before = {name: c for name, c in table(runs).items() if name not in left}
    assert set(before) == set(columns)
    for name, column in before.items():
        np.testing.assert_array_equal(columns[name], column, err_msg=name)
        assert columns[name].dtype == column.dtype, name


def test_every_field_that_decides_a_result_is_kept():
    fields = flatten(plain(defaults()))
    kept = [f for f in fields if f.partition(".")[0] not in (*LEFT_OUT, "evaluate")]
    assert [field for field in kept if not is_read(field)] == []


@pytest.mark.parametrize("ending", WRITERS)
def test_any_cell_comes_back(tmp_path, ending):
    cells = {
        "text": [
            "a",
            "12",
            "",
            None,
            " b",
            '"q"',
            "true",
            "Infinity",
            "\\NaN",
            "a,\nb",
        ],
        "mixed": [1, "1", True, "True", None, 0.5, -np.inf, "x", "[1, 2]", 10**20],
        "number": [1e-300, 0.1, np.inf, -np.inf, None, 3, 2**53 + 2.0, -0.0, 1e22, 7],
        "switch": [True, False, None] * 3 + [True],
    }
    path = tmp_path / f"t{ending}"
    write_cells(path, cells)
    for name, column in read_cells(path).items():
        read = [read_cell(value) for value in column]
        assert read == cells[name], name
        assert [v is True for v in read] == [v is True for v in cells[name]]


def test_the_report_of_a_sweeps_table_is_the_sweeps(sweep, reported, tmp_path):
    words, record = reported
    write_table_report(sweep / "runs.csv", tmp_path)
    again = read_json(tmp_path / "report.json")
    for name in ("verdicts", "overall", "comparisons", "cells", "law", "notes"):
        assert again[name] == record[name], name
    assert record["overall"][0]["speedup"] == pytest.approx(1.3, abs=0.05)
    assert "a chip" in (tmp_path / "report.html").read_text()
    assert "page" not in words


def test_a_table_of_steps_has_the_same_runs_and_their_curves(sweep, tmp_path):
    path = tmp_path / "steps.jsonl"
    runs = load_runs(sweep)
    export(path, runs, "validation_loss", steps=True)
    loaded = load_table(path)
    done = [run for run in runs if run.status == "finished"]
    assert list(loaded.columns["id"]) == [run.id for run in runs]
    for run in done:
        curve = loaded.curves[run.id]
        np.testing.assert_array_equal(curve["step"], run.metrics()["step"])
        np.testing.assert_array_equal(
            curve["validation_loss"], run.metrics()["validation_loss"]
        )
    recorded = material(loaded).recorded
    assert set(recorded) == {run.id for run in runs}


def _foreign(path, *, seeds=1, ending="csv", sizes=(20, 60, 180), scatter=0.0):
    """Losses of a law; what Muon makes of tokens is planted."""
    rng = np.random.default_rng(0)
    lines = ["optim,size,data_tokens,eval/loss,run,remark"]
    for name, worth in (("adamw", 1.0), ("muon", 1.4)):
        for size in sizes:
            for ratio in (20, 40, 80):
                for seed in range(seeds):
                    n, d = size * 1e6, size * 1e6 * ratio
                    loss = 1.8 + 480 / n**0.35 + 2100 / (worth * d) ** 0.37
                    loss += 0.01 * seed + scatter * rng.standard_normal()
                    lines.append(
                        f"{name},{size}m,{d / 1e9},{loss},r{seed},{len(lines)}"
                    )
    file = path / f"runs.{ending}"
    file.write_text("\n".join(lines) + "\n")
    return file


MINE = "label=optim,params=size,tokens=1e9*data_tokens,loss=eval/loss"


def _analyzed(file, columns=MINE):
    made = material(load_table(file, columns))
    return made, analyze(
        made.columns, made.baseline, made.metric, made.interpolate, made.source
    )


def test_a_foreign_table_gives_the_planted_law_and_says_what_it_lacks(tmp_path):
    made, analysis = _analyzed(_foreign(tmp_path, seeds=1))
    assert analysis.baseline == "adamw"
    assert {cell.status for cell in analysis.cells} == {"given"}
    np.testing.assert_allclose(analysis.cells[0].compute, 6 * 20e6 * 400e6)
    law = differences(made.columns, analysis)
    assert law.fit.efficiency("muon").tokens.value == pytest.approx(1.4, abs=0.05)
    said = " ".join(made.provenance.notes)
    for words in (
        "gives no seeds",
        "gives no grids",
        "(the column tried)",
        "names no data",
        "6 FLOP for each parameter and token",
        "not read: run, remark",
    ):
        assert words in said
    assert not any("config." in note for note in notes(analysis))


def test_the_command_reads_speedups_off_a_power_law_where_it_is_asked_to(
    tmp_path, capsys
):
    lengths = [1, 2, 4, 8, 16]
    worth = {"adamw": 1.0, "muon": 1.3}
    rows = [
        f"{name},{n}k,{2 + (n * w) ** -0.4}"
        for name, w in worth.items()
        for n in lengths
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["label,steps,loss", *rows]))
    words = ["report", f"--table={path}", f"--output={tmp_path}", "--curve=power"]
    report.run(words)
    assert "lengths, power law" in capsys.readouterr().out
    found = read_json(tmp_path / "report.json")["comparisons"]
    np.testing.assert_allclose([one["speedup"] for one in found], 1.3, rtol=1e-4)
    assert "a floor and a power of compute" in (tmp_path / "report.html").read_text()


def test_the_page_of_a_foreign_table(tmp_path):
    words = write_table_report(
        _foreign(tmp_path, seeds=3, scatter=1e-4),
        tmp_path / "page",
        f"{MINE},seed=run",
        baseline="adamw",
    )
    record = read_json(tmp_path / "page/report.json")
    assert record["overall"][0]["interval"][0] > 1
    assert "faster at 95 %" in words
    assert "gives no seeds" not in words
    text = (tmp_path / "page/report.html").read_text()
    for said in ("One law for all", "20M params", "as given", "speedup in tokens"):
        assert said in text
    assert "config." not in text
    assert "<svg" in text


def test_steps_of_others_become_runs(tmp_path):
    file = tmp_path / "log.csv"
    lines = ["run,who,it,of,val"]
    for who, gain in (("a", 1.0), ("b", 1.2)):
        for run in range(2):
            for step in range(0, 50 if (who, run) == ("b", 1) else 101, 10):
                loss = "nan" if (who, run, step) == ("a", 1, 100) else 3 - gain * step
                lines.append(f"{who}{run},{who},{step},100,{loss}")
    lines.append("a0,a,100,100,-7")  # a resumed run writes a step again
    file.write_text("\n".join(lines))
    loaded = load_table(file, "id=run,label=who,step=it,steps=of,loss=val,seed=run")
    columns = loaded.columns
    assert list(columns["status"]) == ["finished", "diverged", "finished", "unfinished"]
    assert columns["final.loss"][0] == -7
    assert loaded.report["unit"] == "steps"
    assert len(loaded.curves["b1"]["step"]) == 5


# Columns of a table, entries of --columns, and what the line must name.
WRONG = [
    ("optimizer,val_loss\na,1", "", "mean --columns=label=optimizer,loss=val_loss?"),
    ("label,x\na,1", "", "no column 'loss'"),
    ("label,loss\na,1", "lable=label", "did you mean 'label'"),
    ("label,loss\na,1", "params=lose", "no column 'lose'; did you mean 'loss'"),
    ("label,loss\na,1", "params", "--columns=params: write NAME=COLUMN"),
    ("label,loss\na,1", "seed=loss,seed=label", "'seed' is given twice"),
    ("label,loss\na,high", "", "row 1: loss: 'high' is no number"),
    ("label;loss\na;2,5", "", "'2,5' is no number; decimals take a point"),
    ("label,loss,params\na,1,big", "", "row 1: params: 'big' is no number; a count"),
    ("label,loss,params\na,1,0", "", "column 'parameters' has a number"),
    ("label,loss,status\na,1,finishd", "", "did you mean 'finished'"),
    ("label,loss,id\na,1,x\na,2,x", "", "the run 'x' has 2 rows"),
    ("label,loss,lr\na,1,3\na,2,4", "", "size and length; they differ in 'lr'; say"),
    ("label,loss,step\na,1,3\na,2,3", "", "step 3 stands twice in a run"),
    ("label,loss,schema\na,1,2", "", "schema 2, and this gnomon reads 1"),
    ("label,loss,metric\na,1,x\nb,1,y", "", "names 2 metrics"),
    ("label,loss\na,1,2", "", "row 2: 3 cells under 2 names"),
    ("label,loss,loss\na,1,2", "", "'loss' stands twice"),
    ("label,loss\n", "", "no rows"),
    ("", "", "no rows"),
    ("label,loss\n,1", "", "row 1: column 'label' is empty"),
]


@pytest.mark.parametrize(("text", "columns", "said"), WRONG)
def test_a_wrong_table_is_refused_in_a_line(text, columns, said, tmp_path):
    file = tmp_path / "runs.csv"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as error:
        material(load_table(file, columns))
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--table=none.csv", "--output=o"], "none.csv: no such file"),
        (["--table=a_file", "--output=o"], "a table ends in .csv"),
        (["--table=t.csv"], "--output: missing"),
        (["--table=t.csv", "--output=o", "--baseline=muom"], "did you mean 'muon'"),
        (["--table=t.csv", "--output=o", "--metric=x"], "--metric=x: no such column"),
        (["--table=t.csv", "--output=o", "--workdir=w"], "give one of them"),
        (["--table=t.csv", "--output=o", "--export=x.csv"], "--export goes with"),
        (["--workdir=w", "--columns=x=y"], "--columns goes with --table"),
        (["--table=.", "--output=o", "--columns=label=fil"], "did you mean 'file'"),
    ],
)
def test_a_wrong_flag_is_refused_in_a_line(words, said, refused, workplace):
    (workplace / "t.csv").write_text("label,loss\nadamw,2\nmuon,1\n")
    assert said in refused("report", words)


def test_the_leaderboard_takes_the_tables_of_others(sweep, tmp_path):
    add(_foreign(tmp_path), tmp_path / "docs", "theirs", MINE, "muon")
    stored = read(tmp_path / "docs/results/theirs.json")
    made, _ = _analyzed(_foreign(tmp_path))
    for name, column in made.columns.items():
        np.testing.assert_array_equal(stored.columns[name], column, err_msg=name)
    text = build(tmp_path / "docs").read_text()
    for said in ("adamw", "the baseline", "not told", "gives no grids", "theirs.html"):
        assert said in text
    with pytest.raises(ValueError, match="--columns and --baseline go with a table"):
        add(sweep, tmp_path / "docs", "mine", MINE)


def test_a_sweeps_folder_and_its_file_give_fits_the_same(sweep, reported):
    del reported
    folder, file = (load_table(path).fits() for path in (sweep, sweep / "runs.csv"))
    assert len(folder["loss"]) == 21
    for name, column in run_table(sweep).items():
        np.testing.assert_array_equal(folder[name], column, err_msg=name)
        np.testing.assert_array_equal(file[name], column, err_msg=name)


def test_runs_without_a_place_are_left_out_and_said(tmp_path):
    file = tmp_path / "runs.csv"
    file.write_text("label,loss,steps\na\x1b,2,100\nb,1,\nb,1.5,100\n")
    loaded = load_table(file)
    assert list(loaded.columns["label"]) == ["a\\x1b", "b"]
    np.testing.assert_array_equal(loaded.columns["final.loss"], [2, 1.5])
    assert "1 run is left out, without a size or length" in " ".join(loaded.notes)


def test_many_optimizers_without_a_speedup_are_one_sentence(tmp_path):
    file = tmp_path / "runs.csv"
    rows = [
        f"{label},{2 - 0.1 * i + 0.01 * seed},{100 + i // 2},{seed},5"
        for i, label in enumerate("abcd")
        for seed in range(1 + i % 2)
    ]
    file.write_text("\n".join(["label,loss,steps,seed,tried", *rows]))
    made, analysis = _analyzed(file, "")
    lines = verdict_lines(analysis)
    assert "b's tuned loss differs from a's by -0.0950" in lines[0]
    assert lines[1:] == [
        "No speedup is given for b, c, d: the baseline is tuned at one compute only, so"
        " it has no curve of loss against compute."
    ]
    assert "(the column tried)" not in " ".join(made.provenance.notes)
    assert any("Where an optimizer has one seed" in note for note in notes(analysis))
