"""Loss spikes: found, recorded, skipped, gone back from; and the same after a kill."""

import sys
import threading
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.experiments.config.grid import over
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import groups, make_trials
from gnomon.experiments.config.validation import validate
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.data import load
from gnomon.experiments.data.order import Order
from gnomon.experiments.records.metrics import MetricsWriter, read_metrics
from gnomon.experiments.trial import checkpoint, engine
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.dispatch import Pace
from gnomon.experiments.trial.lanes import compile_lanes, hypers_of, seeds_of
from gnomon.experiments.trial.resume import first_lanes
from gnomon.experiments.trial.rewind import Rewinds
from gnomon.experiments.trial.spikes import ROOM, emptied, judged, memory, records, told

pytestmark = pytest.mark.usefixtures("optax_promotion")
STEPS, BATCH, SPIKE = 16, 4, 9
SETTINGS = {"window": 8, "sigma": 6.0, "patience": 3}


def settings(action, **changes):
    spikes = {"every": 4, "rewinds": 2, **SETTINGS}
    return {"spikes": {"action": action, **spikes, **changes}}


@pytest.fixture(scope="module")
def make(tiny):
    """Trials of a small MLP; more than one, if they have more than one rate."""

    def trials(*rates, **changes):
        model = {"inputs": 13, "widths": [8], "classes": 3}
        config = tiny(
            steps=STEPS,
            batch=BATCH,
            task="gnomon.experiments.tasks.classification",
            model={"name": "gnomon.models.MLP"} | model,
            data={"name": "wine"},
            optimizer={"name": "optax.adamw", "learning_rate": 1e-2},
            evaluate={"every": 0, "batches": 1, "batch": 8},
            log_every=6,
            checkpoint_every=5,
            **changes,
        )
        return make_trials(config, over("optimizer.learning_rate", rates or [1e-2]))

    return trials


def planted(trial, *positions):
    """The data of a trial, with batches that nothing can be learned from."""
    dataset = load(trial.config["data"])
    order = dataset.order(BATCH, trial.config["seed"])
    batches = [order.next() for _ in range(STEPS + 12)]
    features = dataset.train["features"]
    features = (features - features.mean(0)) / features.std(0)
    for position in positions:
        features[batches[position]] *= 1e4
    train = {**dataset.train, "features": features}
    return dataset._replace(train=train), batches


def run(folder, trials, dataset, lanes, stop=lambda: False):
    """The rows of a chunk, and the state that it ends with."""
    folders = [folder / str(lane) for lane in range(len(trials))]
    chunk = engine.Chunk(trials, folders, folder / "checkpoints")
    engine.run(chunk, lanes, dataset, flops_per_step=1.0, stop=stop)
    with Checkpoints(folder / "checkpoints") as keeper:
        _, state, _ = keeper.restore(first_lanes(lanes.state, len(trials)))
    return [read_metrics(f) for f in folders], plain(state)


def plain(state):
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


def by_hand(lanes, trials, dataset, batches):
    """The state after steps on some batches, by the program of the run."""
    seeds, _, which = seeds_of(trials)
    hypers = hypers_of(trials)
    state = lanes.init(seeds, hypers)
    for index in batches:
        chosen = np.zeros((lanes.most, 1, BATCH), int)
        chosen[0, 0] = index
        blocks = {name: array[chosen] for name, array in dataset.train.items()}
        blocks = jax.device_put(blocks, lanes.place.blocks)
        how = np.int32(1), np.bool_(False)
        state, _ = lanes.steps(state, blocks, *how, which, hypers)
    return plain(state)


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def spikes_of(rows):
    return [spike for row in rows for spike in row.get("spikes", ())]


def told_of(spikes):
    return [(s["step"], s["batch"], s["action"]) for s in spikes]


@pytest.mark.parametrize("where", ["vmap", "mesh"])
def test_a_spike_is_recorded_with_its_layers_and_skipped(make, tmp_path, where):
    """Skipped, the run ends where one without the batch ends, in lanes as well."""
    rates, changes = (1e-2, 2e-2), {"accumulate": 2}
    if where == "mesh":
        rates, changes = (), {"mesh": {"data": 2, "model": 2, "rules": "zero1"}}
    trials = make(*rates, **settings("skip"), **changes)
    dataset, batches = planted(trials[0], SPIKE)
    lanes = compile_lanes(trials, dataset, "vmap" if where == "vmap" else None)
    assert lanes.most > 1
    rows, state = run(tmp_path / "skip", trials, dataset, lanes)
    for lane in rows:
        (spike,) = spikes_of(lane)
        assert told_of([spike]) == [(SPIKE, SPIKE, "skip")]
        assert [row["step"] for row in lane if "spikes" in row] == [12]
        assert spike["loss"] > spike["loss_bound"]
        assert spike["gradient_norm"] > 100 * spike["gradient_norm_bound"]
        assert spike["layers"].keys() == {"head", "hidden/0"}
        first, second = spike["layers"].values()
        assert first > second > 100
        assert lane[1]["train_loss"] < spike["loss"] / 100, "no mean has the spike"
    without = by_hand(lanes, trials, dataset, np.delete(batches[:STEPS], SPIKE, 0))
    assert_same(state.params, without.params)
    assert_same(state.opt_state, without.opt_state)
    assert state.step[0] == without.step[0] + 1
    assert_same(
        [state.spikes[name] for name in ("loss", "norm", "layers", "count")],
        [without.spikes[name] for name in ("loss", "norm", "layers", "count")],
    )
    # Killed before the row that has it, and run again.
    asked = iter([False] * 10 + [True])
    with pytest.raises(Interrupted, match="step 11 of"):
        run(tmp_path / "again", trials, dataset, lanes, stop=lambda: next(asked))
    again = run(tmp_path / "again", trials, dataset, lanes)
    assert again[0] == rows
    assert_same(again[1], state)


def test_a_recorded_spike_changes_nothing_else(make, tmp_path):
    (plainly,), (watched,) = make(), make(**settings("record"))
    dataset, _ = planted(plainly, SPIKE)
    found = []
    for name, trial in (("plain", plainly), ("watched", watched)):
        lanes = compile_lanes([trial], dataset)
        found.append(run(tmp_path / name, [trial], dataset, lanes))
    ((plain_rows,), before), ((rows,), after) = found
    assert told_of(spikes_of(rows)) == [(SPIKE, SPIKE, "record")]
    assert not before.spikes
    without = [{k: v for k, v in row.items() if k != "spikes"} for row in rows]
    assert without == plain_rows
    assert_same(after._replace(spikes=()), before._replace(spikes=()))


class Killed(Exception):
    """In place of a signal."""


def killed_after(calls):
    """A stop that ends the run as a kill would: nothing is saved on the way out."""
    left = iter(range(calls))

    def stop():
        if next(left, None) is None:
            raise Killed
        return False

    return stop


def test_a_run_goes_back_and_past_what_led_to_a_spike(make, tmp_path, monkeypatch):
    """As over the remaining order; twice, then no more; and the same after kills."""
    monkeypatch.setattr(Pace, "part", lambda self, steps: min(steps, self._most))
    trials = make(**settings("rewind"), steps_per_dispatch=2)
    # The second is met once the first has sent the run back, the third after that.
    dataset, batches = planted(trials[0], SPIKE, SPIKE + 2, 18)
    lanes = compile_lanes(trials, dataset)
    assert lanes.most == 2
    (rows,), state = run(tmp_path / "whole", trials, dataset, lanes)
    assert [row["step"] for row in rows] == [6, 12, 16]
    assert told_of(spikes_of(rows)) == [
        (SPIKE, SPIKE, "rewind"),
        (SPIKE, SPIKE + 2, "rewind"),
        (14, 18, "record"),
    ]
    assert [spike.get("back_to") for spike in spikes_of(rows)] == [8, 8, None]
    left = [*batches[:8], *batches[12:20]]
    assert_same(state.params, by_hand(lanes, trials, dataset, left).params)
    for calls in (9, 5, 8, 2):
        with pytest.raises(Killed):
            run(tmp_path / "killed", trials, dataset, lanes, stop=killed_after(calls))
    asked = iter([False] * 4 + [True])
    with pytest.raises(Interrupted):
        run(tmp_path / "killed", trials, dataset, lanes, stop=lambda: next(asked))
    (again,), after = run(tmp_path / "killed", trials, dataset, lanes)
    assert again == rows
    assert_same(after, state)


def test_rows_behind_which_a_run_went_back_are_at_no_tracker(
    make, tmp_path, monkeypatch
):
    """Nor are they closed before the save is done that syncs them."""
    sent, sync, written = [], MetricsWriter.sync, checkpoint.sync_tree
    wait, waited = Checkpoints.wait, threading.Event()

    def init(**given):
        log = lambda row, step: sent.append({"step": step, **row})  # noqa: E731
        return types.SimpleNamespace(log=log, finish=lambda: None)

    def waiting(keeper):
        if keeper._pending is not None:
            waited.set()
        wait(keeper)

    def slowly(folder):
        waited.wait(10)
        waited.clear()
        written(folder)

    def synced(writer):
        assert writer._descriptor is not None, "closed before it is synced"
        sync(writer)

    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=init))
    monkeypatch.setattr(Checkpoints, "wait", waiting)
    monkeypatch.setattr(checkpoint, "sync_tree", slowly)
    monkeypatch.setattr(MetricsWriter, "sync", synced)
    changes = {"steps_per_dispatch": 1, "writers": {"wandb": {}}}
    trials = make(**settings("rewind", every=5), **changes)
    dataset, _ = planted(trials[0], SPIKE - 2)
    lanes = compile_lanes(trials, dataset)
    (rows,), _ = run(tmp_path, trials, dataset, lanes)
    # The row of step 6 was there before, with the batch of step 5.
    (spike,) = spikes_of(rows)
    assert (spike["step"], spike["back_to"], rows[0]["step"]) == (SPIKE - 2, 5, 6)
    told = [{k: v for k, v in row.items() if k != "spikes"} for row in rows]
    assert sent == told


def test_a_run_that_goes_back_is_alone(make):
    trials = make(1e-2, 2e-2, **settings("rewind"))
    assert len(groups(trials)) == 2
    assert len(groups(make(1e-2, 2e-2, **settings("skip")))) == 1
    with pytest.raises(ConfigError, match="one trial at a time"):
        Rewinds(trials[0].config, [Order(8, BATCH, 0)], 2, ())


def test_what_is_a_spike():
    """A window of its own, patience, and what is not finite, step by step."""
    params = {"a": {"w": jnp.ones(2)}, "b": {"w": jnp.ones(2)}}
    quiet = [1.0, 1.1, 0.9, 1.0]
    high = [5.0, 5.1, 5.2, 5.0, 5.1]

    @jax.jit
    def verdicts(losses, sizes):
        def step(carried, x):
            loss, size, at = x
            grads = {"a": {"w": size * jnp.ones(2)}, "b": {"w": jnp.ones(2)}}
            found = judged(SETTINGS, carried, at, loss, grads)
            return found.memory, found.spike

        steps = jnp.arange(len(losses))
        return jax.lax.scan(step, memory(SETTINGS, params), (losses, sizes, steps))

    def of(losses, sizes=None):
        # Of one length all: one program.
        losses = [*losses, *[1.0] * (40 - len(losses))]
        sizes = [*(sizes or ()), *[1.0] * (40 - len(sizes or ()))]
        carried, found = verdicts(jnp.array(losses), jnp.array(sizes))
        return np.flatnonzero(found).tolist(), carried

    assert of([1.0, 50.0, 1.0])[0] == [], "half of a window is not there"
    assert of([1.0, np.nan])[0] == [1]
    assert of([*quiet, 3.0, 1.0, 3.0])[0] == [4, 6], "a spike does not count"
    assert of([*quiet, *quiet, 3.0, 3.0])[0] == [8, 9], "in a full window neither"
    # Three in a row, then a new level, of which two values say nothing yet.
    assert of([*quiet, *high])[0] == [4, 5, 6]
    spikes, carried = of(quiet, [1.0, 1.1, 0.9, 1.0, 100.0])
    assert spikes == [4]
    (record,) = records(jax.device_get(told(carried)), ("a", "b"), "skip", ahead=2)
    assert (record["step"], record["batch"], [*record["layers"]]) == (4, 6, ["a", "b"])
    np.testing.assert_allclose(record["layers"]["a"], 100.0, rtol=1e-4)
    _, carried = of([np.inf] * 40)
    found = records(jax.device_get(told(carried)), ("a", "b"), "skip")
    assert (len(found), found[-1]["more"]) == (ROOM, 40 - ROOM)
    assert emptied(carried)["events"]["count"] == 0


def test_settings_that_mean_nothing_are_refused(tiny):
    with pytest.raises(ConfigError, match=r"action='skipp': .*did you mean 'skip'"):
        validate(tiny(spikes__action="skipp"))
    with pytest.raises(ConfigError, match=r"spikes.window=1: needs an integer >= 2"):
        validate(tiny(spikes__window=1))
