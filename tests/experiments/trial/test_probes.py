"""Probes in the trainer: they tell, and they change nothing."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from gnomon.dynamics import layers_of, parse
from gnomon.dynamics.names import CHEAP, FREE, FREE_SCALARS, FULL_SCALARS, QUANTITIES
from gnomon.experiments.config import load, override, validate
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import group_key, make_trial
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.data import load as load_data
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.trial import engine
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.lanes import compile_lanes
from gnomon.experiments.trial.resume import first_lanes

pytestmark = pytest.mark.usefixtures("optax_promotion")

DYNAMICS = {"free": True, "cheap_every": 4, "full_every": 6}


def config(**changes):
    base = {
        "steps": 10,
        "batch": 8,
        "log_every": 3,
        "checkpoint_every": 5,
        "tensorboard": False,
        "model.widths": [8],
        "evaluate": {"every": 0, "batches": 1, "batch": 8},
    }
    return override(load("digits_mlp.py"), base | changes)


def trials(dynamics):
    rates = (1e-3, 1e-2)
    changes = ({"optimizer.learning_rate": r, "dynamics": dynamics} for r in rates)
    return [make_trial(config(**c)) for c in changes]


def run(folder, chunk, lanes, dataset, stop=lambda: False):
    folders = [folder / str(lane) for lane in range(len(chunk))]
    about = engine.Chunk(chunk, folders, folder / "checkpoints")
    results = engine.run(about, lanes, dataset, flops_per_step=1.0, stop=stop)
    with Checkpoints(folder / "checkpoints") as keeper:
        _, state, _ = keeper.restore(first_lanes(lanes.state, len(chunk)))
    state = state._replace(key=jax.random.key_data(state.key))
    return results, [read_metrics(f) for f in folders], state


def watched(folder, dynamics):
    """Two learning rates side by side; with what it took to run them."""
    dataset = load_data(config()["data"])
    chunk = trials(dynamics)
    lanes = compile_lanes(chunk, dataset)
    return run(folder, chunk, lanes, dataset), (chunk, lanes, dataset)


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """A chunk with all probes: results, rows by lane and state; and its making."""
    with jax.numpy_dtype_promotion("standard"):
        return watched(tmp_path_factory.mktemp("probes"), DYNAMICS)


def test_a_row_is_read_while_the_next_step_runs(seen, tmp_path):
    """With the same rows: those that the fixture's own run has."""
    (_, rows, _), (chunk, lanes, dataset) = seen
    events = []

    def noted(function):
        def call(state, *arguments):
            events.append(("dispatched", len(events)))
            return function(state, *arguments)

        return call

    def watch(tick):
        events.append(("read" if tick.losses is not None else "passed", tick.step))

    noting = lanes._replace(
        step=noted(lanes.step),
        probes=lanes.probes | {"free": noted(lanes.probes["free"])},
    )
    folders = [tmp_path / str(lane) for lane in range(len(chunk))]
    about = engine.Chunk(chunk, folders, tmp_path / "checkpoints")
    engine.run(about, noting, dataset, flops_per_step=1.0, watch=watch)
    names = [name for name, _ in events]
    for step in (3, 6, 9, 10):
        ahead = names[: events.index(("read", step))].count("dispatched")
        # A step that is saved is read before: the rows are part of a checkpoint.
        assert ahead == min(step + 1, 10), step
    assert [read_metrics(folder) for folder in folders] == rows


def probes_of(row):
    return {name for key in row if (name := parse(key)) is not None}


def test_training_is_the_same_to_the_bit(tmp_path):
    """Parameters, optimizer state, metrics and results, in both lanes.

    And without probes, the default, there is no trace of them.

    As users compile, in a process of its own: the suite's settings make programs that
    round differently where probes read what a step computes on the way.
    """
    settings = {"XLA_FLAGS", "JAX_DISABLE_MOST_OPTIMIZATIONS"}
    environment = {k: v for k, v in os.environ.items() if k not in settings}
    command = [sys.executable, __file__, str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def same_to_the_bit(folder):
    jax.config.update("jax_num_cpu_devices", 8)
    off, on = (watched(folder / n, d)[0] for n, d in (("off", {}), ("on", DYNAMICS)))
    for field in ("params", "opt_state", "stats", "step", "key"):
        a, b = (jax.tree.leaves(getattr(run[2], field)) for run in (off, on))
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y, err_msg=field)
    for plain, probed in zip(off[1], on[1], strict=True):
        stripped = [
            {key: value for key, value in row.items() if parse(key) is None}
            for row in probed
        ]
        assert [row for row in stripped if len(row) > 1] == plain
    for a, b in zip(off[0], on[0], strict=True):
        assert a | {"seconds": 0} == b | {"seconds": 0}
    assert all(not probes_of(row) for rows in off[1] for row in rows)
    assert off[2].probes == {}


def test_every_row_has_the_documented_keys_of_its_step(seen):
    rows = {row["step"]: probes_of(row) for row in seen[0][1][0]}
    quantities = {step: {n.quantity for n in names} for step, names in rows.items()}
    free, cheap, full = {*FREE, *FREE_SCALARS}, {*CHEAP}, {*FULL_SCALARS}
    assert quantities == {
        3: free,
        4: cheap,
        6: free | full,
        8: cheap,
        9: free,
        10: free,
    }
    state = seen[0][2]
    layers = {*layers_of(state.params).names}
    for names in rows.values():
        for quantity in {n.quantity for n in names}:
            found = {n.layer for n in names if n.quantity == quantity}
            if quantity in FREE_SCALARS or quantity in FULL_SCALARS:
                assert found == {None}
            elif quantity in tuple(CHEAP)[-4:]:  # those without a whole model
                assert found == layers
            else:
                assert found == layers | {"all"}
    assert set().union(*quantities.values()) == set(QUANTITIES)


def test_the_rows_describe_the_run(seen):
    """Each lane its own; the numbers agree with the weights that were saved."""
    (_, rows, state), _ = seen
    for lane, last in enumerate(row[-1] for row in rows):
        moved = jax.tree.map(
            lambda new, old, lane=lane: np.sum(np.square(new[lane] - old[lane])),
            state.params,
            state.probes["start"],
        )
        distance = np.sqrt(sum(jax.tree.leaves(moved)))
        np.testing.assert_allclose(last["dynamics/distance/all"], distance, rtol=1e-4)
        squared = sum(np.sum(np.square(x[lane])) for x in jax.tree.leaves(state.params))
        after = last["dynamics/weight_norm/all"] ** 2 + last["dynamics/growth/all"]
        np.testing.assert_allclose(after, squared, rtol=1e-5)
    slow, fast = (row[-1]["dynamics/distance/all"] for row in rows)
    assert fast > 3 * slow


def test_stopped_and_continued_it_writes_the_same_rows(seen, tmp_path):
    """The start and the vectors of the power iteration are in the checkpoint."""
    (_, expected, _), (chunk, lanes, dataset) = seen
    asked = iter([False] * 6 + [True])
    with pytest.raises(Interrupted):
        run(tmp_path, chunk, lanes, dataset, stop=lambda: next(asked))
    _, rows, _ = run(tmp_path, chunk, lanes, dataset)
    assert rows == expected


def test_probes_are_no_part_of_a_trial_but_of_its_program():
    off, on = (make_trial(config(dynamics=d)) for d in ({}, DYNAMICS))
    assert off.id == on.id
    assert group_key(off) != group_key(on)


@pytest.mark.parametrize(
    ("dynamics", "message"),
    [
        ({"fre": True}, "config.dynamics.fre: unknown field; did you mean 'free'"),
        ({"free": 1}, "config.dynamics.free=1: needs true or false"),
        ({"cheap_every": -1}, r"config.dynamics.cheap_every=-1: needs an integer >= 0"),
        ({"layers": "("}, r"config.dynamics.layers='\(': not a regex"),
    ],
)
def test_settings_that_cannot_work_are_refused(dynamics, message):
    with pytest.raises(ConfigError, match=message):
        validate(config(dynamics=dynamics))


if __name__ == "__main__":
    same_to_the_bit(Path(sys.argv[1]))
