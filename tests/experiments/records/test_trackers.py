"""Rows go to a tracker once, whatever it does; the files are the truth."""

import logging
import sys
import types

import numpy as np
import pytest

from gnomon.experiments.config import override, validate
from gnomon.experiments.config.writers import TRACKERS
from gnomon.experiments.records.metrics import MetricsWriter, read_metrics
from gnomon.experiments.records.trackers import STARTS
from gnomon.experiments.train import train


class _Fake:
    """A module with the calls of wandb and of trackio; keeps runs as their server."""

    def __init__(self, fails=""):
        self.fails, self.runs, self.began, self.finished = fails, {}, [], 0

    def init(self, **given):
        self._may_fail("init")
        name = given.get("id") or given["name"]
        self.began.append(given)
        self.runs.setdefault(name, [])
        return types.SimpleNamespace(
            log=lambda row, step: self._log(name, row, step), finish=self._finish
        )

    def _log(self, name, row, step):
        self._may_fail("log")
        self.runs[name].append((step, row))

    def _finish(self):
        self._may_fail("finish")
        self.finished += 1

    def _may_fail(self, call):
        if call == self.fails:
            raise ConnectionError("no network\nat all")


@pytest.fixture(params=TRACKERS)
def tracker(request):
    return request.param


@pytest.fixture
def fake(tracker, monkeypatch):
    def make(**options):
        module = _Fake(**options)
        monkeypatch.setitem(sys.modules, tracker, module)
        return module

    return make


def _write(folder, tracker, steps, resume):
    with MetricsWriter(
        folder,
        tensorboard=False,
        resume_step=resume,
        trackers={tracker: {"project": "p"}},
        config={"label": "AdamW"},
    ) as writer:
        for step in steps:
            writer.write(step, {"loss": 1 / step, "word": "text", "none": None})


def test_a_resumed_run_is_the_same_run_and_no_step_is_sent_twice(
    fake, tracker, tmp_path
):
    server = fake()
    _write(tmp_path / "a b", tracker, [1, 2, 3, 4], 0)
    _write(tmp_path / "a b", tracker, [3, 4], 2)  # cut off again before new steps
    _write(tmp_path / "a b", tracker, [3, 4, 5, 6], 2)
    ((name, rows),) = server.runs.items()
    assert [step for step, _ in rows] == [1, 2, 3, 4, 5, 6]
    assert rows[3][1]["loss"] == 0.25
    assert np.isnan(rows[0][1]["none"])
    assert "word" not in rows[0][1]
    assert name.startswith("a-b-")
    assert server.finished == 3
    for given in server.began:
        assert (given["project"], given["resume"]) == ("p", "allow")
        assert given["config"] == {"label": "AdamW"}
    assert [row["step"] for row in read_metrics(tmp_path / "a b")] == [1, 2, 3, 4, 5, 6]


def test_a_run_that_starts_anew_is_another_run(fake, tracker, tmp_path):
    server = fake()
    _write(tmp_path, tracker, [1, 2], None)
    _write(tmp_path, tracker, [1, 2], None)
    assert [len(rows) for rows in server.runs.values()] == [2, 2]


@pytest.mark.parametrize("call", ["init", "log", "finish"])
def test_a_tracker_that_fails_costs_one_warning(fake, tracker, tmp_path, caplog, call):
    fake(fails=call)
    with caplog.at_level(logging.WARNING):
        _write(tmp_path, tracker, [1, 2, 3], 0)
    (warning,) = [r.getMessage() for r in caplog.records if tracker in r.getMessage()]
    assert "no network" in warning
    assert "goes on without it" in warning
    assert len(read_metrics(tmp_path)) == 3


@pytest.mark.usefixtures("optax_promotion")
def test_training_sends_what_the_file_holds(tiny, tmp_path, monkeypatch):
    servers = {name: _Fake() for name in TRACKERS}
    for name, server in servers.items():
        monkeypatch.setitem(sys.modules, name, server)
    train(tiny(writers={name: {"project": "p"} for name in TRACKERS}), tmp_path)
    kept = read_metrics(tmp_path)
    for server in servers.values():
        ((_, rows),) = server.runs.items()
        assert [{"step": step, **row} for step, row in rows] == kept
        assert server.began[0]["config"]["optimizer"]["name"] == "optax.adamw"


@pytest.mark.parametrize(
    ("writers", "said"),
    [
        ({"wandbb": {}}, "config.writers.wandbb: no tracker; did you mean 'wandb'"),
        ({"wandb": 3}, "config.writers.wandb=3: give the settings"),
        ({"wandb": {"id": "x"}}, "config.writers.wandb.id: leave it out"),
        ({"trackio": {"name": "x"}}, "config.writers.trackio.name: leave it out"),
    ],
)
def test_wrong_writers_are_refused(tiny, writers, said):
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        validate(override(tiny(), {"writers": writers}))


def test_every_tracker_that_a_config_may_name_can_be_started():
    assert set(STARTS) == set(TRACKERS)
