"""Times to targets and performance profiles, on cases that can be counted by hand."""

import json

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np

from gnomon.experiments.records.runs import Run, table
from gnomon.experiments.report.analysis import analyze
from gnomon.experiments.report.curves import best_curves
from gnomon.experiments.report.profiles import profiles
from gnomon.scaling.comparison.profiles import LIMIT, profile, scores, time_to

INF = np.inf
TIMES = np.array([[100.0, 300, INF, INF], [150, 100, 80, INF], [100, INF, 400, INF]])


def test_profiles_of_a_case_counted_by_hand():
    """Three optimizers on four workloads, of which nobody finished the last."""
    shares = profile(TIMES, np.array([1.0, 1.5, 3.0, 4.0]))
    np.testing.assert_array_equal(
        shares * 4, [[1, 1, 2, 2], [2, 3, 3, 3], [1, 1, 1, 1]]
    )


@hypothesis.given(
    hnp.arrays(float, (3, 5), elements=st.floats(1, 1e4) | st.just(float("inf")))
)
def test_the_score_is_the_area_under_the_profile(times):
    factors = np.linspace(1, LIMIT, 30_001)
    middle = (factors[1:] + factors[:-1]) / 2
    area = profile(times, middle).mean(axis=1)
    np.testing.assert_allclose(scores(times), area, atol=2e-4)


def test_a_target_between_evaluations_at_the_start_and_never():
    step, loss = np.array([10.0, 20, 40]), np.array([3.0, 2.5, 2.7])
    assert time_to(step, loss, 2.75) == 15.0
    assert time_to(step, loss, 3.5) == 10.0
    assert time_to(step, loss, 2.4) == INF


def runs(folder, fast=2.0):
    """A and B on two data sets; B's curve falls ``fast`` times as fast on the first."""
    found = []
    for data in ("x", "y"):
        for label in ("A", "B"):
            speed = fast if (label, data) == ("B", "x") else 1.0
            for rate in (1e-3, 2e-3, 4e-3):
                for seed in (0, 1):
                    name = f"{data}{label}{rate}{seed}"
                    worse = 0.5 * (rate != 2e-3)
                    rows = [
                        {"step": s, "validation_loss": 9 - speed * s / 100 + worse}
                        for s in range(20, 201, 20)
                    ]
                    path = folder / name
                    path.mkdir(parents=True)
                    text = "".join(json.dumps(row) + "\n" for row in rows)
                    (path / "metrics.jsonl").write_text(text)
                    config = {
                        "steps": 200,
                        "data": {"name": data},
                        "optimizer": {"learning_rate": rate},
                    }
                    result = {
                        "status": "finished",
                        "final": {"validation_loss": rows[-1]["validation_loss"]},
                        "parameters": 10,
                        "compute": 1e6,
                    }
                    found.append(Run(name, label, seed, config, result, path))
    return found


def profiles_of(every):
    analysis = analyze(table(every))
    by_id = {run.id: run for run in every}
    return profiles(analysis, best_curves(analysis.cells, by_id, analysis.metric))


def test_a_planted_speed_is_read_off_the_curves(tmp_path):
    """The target is A's loss at 160 of 200 steps; B is there after 80 on one."""
    every = runs(tmp_path)
    found = profiles_of(every)
    np.testing.assert_allclose(found.times, [[160, 160], [80, 160]])
    np.testing.assert_allclose(found.targets, [7.4, 7.4])
    np.testing.assert_allclose(found.scores, [(2 / 3 + 1) / 2, 1.0])
    assert found.notes == []


def test_a_workload_that_is_not_tuned_is_left_out_with_the_reason(tmp_path):
    every = [
        run
        for run in runs(tmp_path)
        if run.label == "A"
        or run.config["data"]["name"] == "x"
        or run.config["optimizer"]["learning_rate"] <= 2e-3
    ]
    found = profiles_of(every)
    assert len(found.workloads) == 1
    assert "B is not tuned there" in found.notes[0]


def test_a_single_workload_has_no_profile(tmp_path):
    every = [run for run in runs(tmp_path) if run.config["data"]["name"] == "x"]
    assert profiles_of(every) is None
