"""One trial over several devices is the trial on one, to the rounding of its sums."""

import shutil
import types

import jax
import numpy as np
import pytest

from gnomon.experiments.config import validate
from gnomon.experiments.config.grid import over
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import groups, make_trial, make_trials
from gnomon.experiments.data import load
from gnomon.experiments.fleet import plan
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.train import load_state, train
from gnomon.experiments.trial.abstract import trace
from gnomon.experiments.trial.lanes import compile_lanes, hypers_of, seeds_of
from gnomon.experiments.trial.mesh import device_mesh

pytestmark = pytest.mark.usefixtures("optax_promotion")
RATE, STEPS = 1e-2, 12
# Sums round in another order on another mesh. So many Adam steps then agree to 2e-4 of
# the way that they can move a weight.
CLOSE = dict(rtol=0, atol=2e-4 * RATE * STEPS)


@pytest.fixture
def small(tiny):
    """A config of a small MLP, which compiles in a moment, on a mesh."""

    def make(*, mesh=None, **changes):
        rates = {"name": "optax.adamw", "learning_rate": RATE, "weight_decay": 0.01}
        return tiny(
            steps=STEPS,
            batch=8,
            task="gnomon.experiments.tasks.classification",
            model={
                "name": "gnomon.models.MLP",
                "inputs": 13,
                "widths": [16],
                "classes": 3,
            },
            data={"name": "wine"},
            optimizer=rates,
            mesh={"data": 1, "model": 1, "rules": []} | (mesh or {}),
            **changes,
        )

    return make


def test_a_run_moves_between_meshes_and_ends_as_on_one_device(small, tmp_path):
    """Eight steps on 2 x 4 devices and the rest on 4 x 2, against all on one."""
    one, moved = tmp_path / "one", tmp_path / "moved"
    train(small(), one)
    train(small(mesh={"data": 2, "model": 4}), moved)
    assert load_state(moved).step == 12
    # As if it had been killed before its last checkpoint, at 12.
    (moved / "result.json").unlink()
    shutil.rmtree(moved / "checkpoints/12")
    assert load_state(moved).step == 8
    everything = {"data": 4, "model": 2, "rules": [[".", "data"]]}
    result = train(small(mesh=everything), moved)
    assert result["status"] == "finished"
    trees = [jax.tree.leaves(load_state(run).params) for run in (one, moved)]
    for a, b in zip(*trees, strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    rows = [read_metrics(run) for run in (one, moved)]
    for a, b in zip(*rows, strict=True):
        assert a == pytest.approx(b, rel=1e-4)


def test_lanes_of_a_mesh_lie_on_it_and_equal_lanes_side_by_side(small):
    """What is left of a chunk that began without a mesh may have several lanes."""
    states = []
    for mesh in ({}, {"data": 2, "model": 2, "rules": [["head", []]]}):
        trials = make_trials(small(mesh=mesh), over("seed", [0, 1]))
        dataset = load(trials[0].config["data"])
        lanes = compile_lanes(trials, dataset)
        seeds, _, which = seeds_of(trials)
        hypers = hypers_of(trials)
        state = lanes.init(seeds, hypers)
        for step in range(4):
            index = np.arange(16).reshape(2, 8) + 16 * step
            batches = {name: array[index] for name, array in dataset.train.items()}
            state = lanes.step(state, batches, which, hypers)
        states.append(state)
    for a, b in zip(*(jax.tree.leaves(s.params) for s in states), strict=True):
        np.testing.assert_allclose(a, b, **CLOSE)
    moments = states[1].opt_state[0].mu
    for tree in (states[1].params, moments):
        shards = {
            jax.tree_util.keystr(path, simple=True, separator="/"): {
                shard.data.shape for shard in leaf.addressable_shards
            }
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }
        assert shards["hidden/0/kernel"] == {(2, 13, 8)}, "its 16 outputs over 2"
        assert shards["hidden/0/bias"] == {(2, 16)}, "a vector is whole"
        assert shards["head/kernel"] == {(2, 16, 3)}, "whole by rule"


def test_trials_on_a_mesh_run_one_at_a_time(small, monkeypatch):
    """A compilation that always fits: the number of lanes is then a choice."""
    fits = types.SimpleNamespace(bytes=0)
    monkeypatch.setattr(plan, "compile_lanes", lambda trials, dataset: fits)
    for mesh, lanes in (({}, 3), ({"model": 2}, 1)):
        trials = make_trials(small(mesh=mesh), over("seed", range(3)))
        assert plan.fit_lanes(trials, load(trials[0].config["data"]))[0] == lanes


def test_a_mesh_is_no_part_of_the_trial_but_of_its_program(small):
    alone, sharded = make_trial(small()), make_trial(small(mesh={"data": 2}))
    assert alone.id == sharded.id
    assert len(groups([alone, sharded])) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mesh": {"data": 0}}, "config.mesh.data=0: needs an integer above 0"),
        ({"mesh": {"modle": 2}}, "config.mesh.modle.*did you mean 'model'"),
        ({"mesh": {"data": 3}}, "config.batch=8: config.mesh.data=3 does not divide"),
        (
            {"mesh": {"data": 4}, "evaluate__batch": 6},
            r"config.evaluate.batch=6: config.mesh.data=4 .* use 4,",
        ),
        ({"mesh": {"rules": [["(", "data"]]}}, "does not start with a regex"),
        ({"mesh": {"rules": [["head", "modle"]]}}, "does not end with 'data'"),
        ({"mesh": {"rules": [["head", ["data", "data"]]]}}, "at most once"),
        ({"mesh": {"rules": ["head"]}}, "is not a regex and where to cut"),
    ],
)
def test_a_mesh_that_cannot_be_is_refused(small, changes, message):
    with pytest.raises(ConfigError, match=message):
        validate(small(**changes))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (["head/kernel", [None, "model"]], r"head/kernel \(16, 3\): model=2 does not"),
        (["bias", [None, "model"]], r"bias \(\d+,\): it names 2 axes; add a rule"),
    ],
)
def test_a_rule_that_fits_no_parameter_is_refused_before_compilation(
    small, rule, message
):
    config = small(mesh={"model": 2, "rules": [rule]})
    with pytest.raises(ConfigError, match=message):
        trace(config, load(config["data"]))


def test_more_devices_than_there_are_are_refused(small, tmp_path):
    config = small(mesh={"data": 8, "model": 2})
    with pytest.raises(ConfigError, match="needs 16 devices, and this process has 8"):
        train(config, tmp_path)
    assert not (tmp_path / "config.json").exists()


def test_a_trial_of_several_processes_does_not_go_back(small, monkeypatch):
    """Each would have to find the spike in the same dispatch."""
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    mesh = {"data": len(jax.devices())}
    with pytest.raises(ConfigError, match="of 2, 'skip' or 'record'"):
        device_mesh(small(mesh=mesh, spikes__action="rewind"))
    assert device_mesh(small(mesh=mesh, spikes__action="skip")).size == mesh["data"]
