"""What the Ray engine does itself, with Ray's part played in this process.

`test_ray.py` runs it on a real cluster, where Ray is installed (``make test-ray``).
"""

import sys
import types

import pytest

from gnomon.experiments.config.grid import over, product
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.fleet import on_ray, remote
from gnomon.experiments.records.files import write_json
from gnomon.experiments.records.locks import lock
from gnomon.experiments.records.metrics import MetricsWriter
from gnomon.experiments.sweep import Sweep, prepare

pytestmark = pytest.mark.usefixtures("optax_promotion")


@pytest.fixture
def cluster(monkeypatch):
    """A `ray` that runs a task when it is submitted and hands over how it ended."""
    asked = []

    def submit(function, *arguments):
        try:
            return function(*arguments), None
        except Exception as error:
            return None, error

    def get(references):
        for _, error in references:
            if error is not None:
                raise error

    def as_task(function):
        def options(**resources):
            def call(*arguments):
                asked.append(resources)
                return submit(function, *arguments)

            return types.SimpleNamespace(remote=call)

        return types.SimpleNamespace(options=options)

    ray = types.SimpleNamespace(
        asked=asked,
        get=get,
        is_initialized=lambda: True,
        put=lambda value: value,
        remote=as_task,
        wait=lambda references, timeout: (references[:1], references[1:]),
    )
    monkeypatch.setitem(sys.modules, "ray", ray)
    # This process keeps the settings of the test run.
    monkeypatch.setattr(remote, "configure_jax", lambda cpus: None)
    monkeypatch.setattr(remote, "POLL_SECONDS", 0.0)
    return ray


@pytest.fixture
def small(tiny):
    def make(**changes):
        return tiny(
            task="gnomon.experiments.tasks.classification",
            model={
                "name": "gnomon.models.MLP",
                "inputs": 13,
                "widths": [4],
                "classes": 3,
            },
            data={"name": "wine"},
            **changes,
        )

    return make


def test_without_ray_the_command_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'gnomon\[ray\]'"):
        on_ray.connect()


def test_tasks_run_every_trial_and_go_round_until_none_is_left(
    small, tmp_path, cluster, monkeypatch
):
    """The first round finds its only chunk locked, as one whose machine is gone."""
    trials = make_trials(small(), over("seed", [0, 1]))
    sweep = Sweep(trials)
    prepare(sweep, tmp_path, {})
    ids = [trial.id for trial in sweep.trials]
    write_json(tmp_path / "chunks/gone/chunk.json", {"trials": ids})
    held = lock(tmp_path / "chunks/gone/lock")
    clock = types.SimpleNamespace(sleep=lambda seconds: held.release())
    monkeypatch.setattr(remote, "time", clock)
    on_ray.run_sweep(sweep, tmp_path, cpus=2, gpus=0.5, retries=7)
    assert all(remote.is_done(tmp_path, trial) for trial in trials)
    assert len(cluster.asked) == 2, "one task in each round"
    options = {"num_cpus": 2, "num_gpus": 0.5, "max_retries": 7}
    assert options.items() <= cluster.asked[0].items()
    on_ray.run_sweep(sweep, tmp_path)
    assert len(cluster.asked) == 2, "nothing left, nothing asked for"


def test_what_a_task_refuses_ends_the_sweep(small, tmp_path, cluster):
    """Devices are the task's: the process that asks may have none of them."""
    sweep = Sweep(make_trials(small(mesh__model=16), [{}]))
    prepare(sweep, tmp_path, {})
    with pytest.raises(ConfigError, match="needs 16 devices"):
        on_ray.run_sweep(sweep, tmp_path)


def test_there_are_as_many_tasks_as_chunks(small):
    grid = product(over("model.widths", [[2], [4]]), over("seed", range(5)))
    trials = make_trials(small(), grid)
    assert remote.chunks_of(trials, max_lanes=0) == 2
    assert remote.chunks_of(trials, max_lanes=2) == 6
    sharded = make_trials(small(mesh__model=2), grid)
    assert remote.chunks_of(sharded, max_lanes=2) == 10


def test_steps_are_read_from_the_metrics_of_a_running_trial(small, tmp_path):
    (trial,) = make_trials(small(), [{}])
    folder = tmp_path / "trials" / trial.id
    assert remote.steps_taken(tmp_path, trial) == 0
    writer = MetricsWriter(folder, resume_step=0, tensorboard=False)
    for step in range(1, 3000, 2):
        writer.write(step, {"train_loss": 1.0 / step})
    writer.close()
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"step": 30')  # a row that is being written
    assert remote.steps_taken(tmp_path, trial) == 2999
    write_json(folder / "result.json", {"status": "finished", "final": {}})
    assert remote.steps_taken(tmp_path, trial) == trial.config["steps"]
