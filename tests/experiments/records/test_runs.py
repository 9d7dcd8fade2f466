"""What the run reader makes of whole, half-done and broken sweep folders."""

import json

import numpy as np
import pytest

from gnomon.experiments.console.errors import UserError
from gnomon.experiments.records.runs import load_runs, table


def _trial(workdir, name, *, label="AdamW", seed=0, rate=0.01, result=None):
    folder = workdir / "trials" / name
    folder.mkdir(parents=True)
    config = {
        "label": label,
        "seed": seed,
        "steps": 10,
        "model": {"name": "m", "width": 8},
        "optimizer": {"name": "optax.adamw", "learning_rate": rate},
    }
    (folder / "config.json").write_text(json.dumps(config))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    return folder


DONE = {"status": "finished", "final": {"validation_loss": 2.5}, "parameters": 100}


def test_runs_come_in_order_of_id_with_those_that_are_not_done(tmp_path):
    _trial(tmp_path, "b", result=DONE)
    _trial(tmp_path, "a", label="", seed=1)
    first, second = load_runs(tmp_path)
    assert (first.id, first.status, first.seed) == ("a", "unfinished", 1)
    assert first.label == "adamw"  # an empty label takes the optimizer's name
    assert (second.id, second.status, second.label) == ("b", "finished", "AdamW")


def test_a_folder_whose_trial_was_never_described_is_no_run(tmp_path):
    _trial(tmp_path, "a", result=DONE)
    (tmp_path / "trials" / "b").mkdir()
    assert [run.id for run in load_runs(tmp_path)] == ["a"]


def test_errors_name_the_folder_and_the_fix(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_runs(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="run a sweep there first"):
        load_runs(tmp_path)
    _trial(tmp_path, "a", result={"status": "confused"})
    with pytest.raises(ValueError, match="delete the file"):
        load_runs(tmp_path)


def test_a_config_that_is_no_trial_is_named(tmp_path):
    folder = tmp_path / "trials" / "a"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"label": "x"}')
    with pytest.raises(ValueError, match=r"trials/a/config\.json"):
        load_runs(tmp_path)


def test_metrics_survive_a_torn_line_a_null_and_a_step_written_twice(tmp_path):
    folder = _trial(tmp_path, "a")
    (folder / "metrics.jsonl").write_text(
        '{"step": 20, "train_loss": 3.0}\n'
        '{"step": 10, "train_loss": null, "validation_loss": 2.0}\n'
        '{"step": 20, "train_loss": 1.0}\n'
        '{"step": 30, "tra'
    )
    metrics = load_runs(tmp_path)[0].metrics()
    np.testing.assert_array_equal(metrics["step"], [10, 20])
    np.testing.assert_array_equal(metrics["train_loss"], [np.nan, 1.0])
    np.testing.assert_array_equal(metrics["validation_loss"], [2.0, np.nan])


def test_a_trial_without_metrics_has_none(tmp_path):
    _trial(tmp_path, "a")
    assert list(load_runs(tmp_path)[0].metrics()) == ["step"]


def test_the_table_has_a_column_a_field_and_marks_what_is_missing(tmp_path):
    _trial(tmp_path, "a", rate=0.1, result=DONE)
    _trial(tmp_path, "b", rate=0.2)
    columns = table(load_runs(tmp_path))
    np.testing.assert_array_equal(columns["optimizer.learning_rate"], [0.1, 0.2])
    np.testing.assert_array_equal(columns["final.validation_loss"], [2.5, np.nan])
    np.testing.assert_array_equal(columns["parameters"], [100, np.nan])
    assert list(columns["status"]) == ["finished", "unfinished"]
    assert columns["model.name"].dtype == object


ODD = [3, None, [], {}, "x", True]


@pytest.mark.parametrize("field", [*DONE, "final.validation_loss"])
def test_a_result_of_another_form_is_read_or_named(tmp_path, field):
    """It never counts as done without a final value."""
    for i, value in enumerate([*ODD, "absent"]):
        result = dict(DONE)
        if field == "final.validation_loss":
            result["final"] = {"validation_loss": value}
        elif value == "absent":
            del result[field]
        else:
            result[field] = value
        workdir = tmp_path / str(i)
        _trial(workdir, "a", result=result)
        if field == "status" and value == "x":
            with pytest.raises(UserError, match="delete the file"):
                load_runs(workdir)
            continue
        (run,) = load_runs(workdir)
        columns = table([run])
        whole = isinstance(result.get("final"), dict) and "status" in result
        assert whole or run.status == "unfinished"
        assert len(columns["id"]) == 1


def test_metrics_that_are_no_text_are_no_rows(tmp_path):
    folder = _trial(tmp_path, "a")
    good = b'{"step": 1, "train_loss": 2.0}\n'
    for bad in (b"\xff\xfe\x00{]", bytes(range(256)), b'{"step": "\xff"}'):
        (folder / "metrics.jsonl").write_bytes(bad + b"\n" + good)
        metrics = load_runs(tmp_path)[0].metrics()
        assert metrics["train_loss"][-1] == 2.0
