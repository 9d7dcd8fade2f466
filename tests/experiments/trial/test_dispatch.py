"""Many steps in one dispatch are the steps one by one, to the bit."""

import jax
import numpy as np
import pytest

from gnomon.experiments.config.grid import over
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.console.interrupt import Interrupted
from gnomon.experiments.data import load
from gnomon.experiments.records.metrics import read_metrics
from gnomon.experiments.trial import dispatch, engine, feed
from gnomon.experiments.trial.checkpoint import Checkpoints
from gnomon.experiments.trial.dispatch import Pace
from gnomon.experiments.trial.lanes import compile_lanes, hypers_of, seeds_of
from gnomon.experiments.trial.resume import first_lanes

pytestmark = pytest.mark.usefixtures("optax_promotion")
STEPS, RATE = 26, 1e-2


@pytest.fixture
def small(tiny):
    """Trials of a small MLP; the learning rate of the second makes it diverge."""

    def make(**changes):
        model = {"inputs": 13, "widths": [8], "classes": 3}
        config = tiny(
            steps=STEPS,
            batch=8,
            task="gnomon.experiments.tasks.classification",
            model={"name": "gnomon.models.MLP"} | model,
            data={"name": "wine"},
            evaluate={"every": 13, "batches": 3, "batch": 8},
            log_every=6,
            checkpoint_every=13,
            **changes,
        )
        return make_trials(config, over("optimizer.learning_rate", [RATE, 1e30]))

    return make


def plain(tree):
    return jax.device_get(tree._replace(key=jax.random.key_data(tree.key)))


def assert_same(one, other):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("case", ["map", "vmap", "mesh"])
def test_a_loop_of_steps_is_the_steps(small, case, monkeypatch):
    """Lanes one after another, side by side on one device, and each on a mesh.

    On a mesh XLA sums in another order in a loop: to 2e-4 of the way that so many Adam
    steps can move a weight.
    """
    mesh, how = {}, None if case == "mesh" else case
    if case == "mesh":
        mesh = {"mesh": {"data": 2, "model": 2, "rules": []}}
    else:
        devices = jax.devices()[:1]
        monkeypatch.setattr(jax, "local_devices", lambda: devices)
    trials = small(**mesh)
    dataset = load(trials[0].config["data"])
    loop = compile_lanes(trials, dataset, how)
    seeds, distinct, which = seeds_of(trials)
    assert (loop.most, len(distinct)) == (6, 1)
    hypers = hypers_of(trials)
    index = np.arange(8) + 9 * np.arange(loop.most)[:, None, None]
    batches = {name: array[index] for name, array in dataset.train.items()}
    states = [loop.init(seeds, hypers) for _ in range(2)]
    for at in range(5):
        step = {name: array[at] for name, array in batches.items()}
        states[0] = loop.step(states[0], step, which, hypers)
    for first, count, logging in ((0, 2, False), (2, 3, True)):
        rest = {name: np.roll(array, -first, 0) for name, array in batches.items()}
        blocks = jax.device_put(rest, loop.place.blocks)
        how_long = np.int32(count), np.bool_(logging)
        states[1], seen = loop.steps(states[1], blocks, *how_long, which, hypers)
    one, many = (plain(state) for state in states)
    assert one.step.tolist() == [5, 5]
    assert one.diverged_at[0] == -1 < one.diverged_at[1]
    assert not any(total.any() for total in many.window.values()), "read and empty"
    if case == "mesh":
        close = dict(rtol=0, atol=2e-4 * RATE * 5)
        for a, b in zip(*map(jax.tree.leaves, (one.params, many.params)), strict=True):
            np.testing.assert_allclose(a[0], b[0], **close)
    else:
        assert_same(seen.window, one.window)
        assert_same(one._replace(window={}), many._replace(window={}))


def run(folder, trials, stop=lambda: False, **changes):
    """Runs a chunk; its rows, its last state, and the steps at which dispatches end."""
    dataset = load(trials[0].config["data"])
    lanes = compile_lanes(trials, dataset)
    folders = [folder / str(lane) for lane in range(len(trials))]
    ends = []
    chunk = engine.Chunk(trials, folders, folder / "checkpoints")
    options = dict(flops_per_step=1.0, watch=lambda tick: ends.append(tick.step))
    engine.run(chunk, lanes, dataset, stop=stop, **options)
    with Checkpoints(folder / "checkpoints") as keeper:
        _, state, _ = keeper.restore(first_lanes(lanes.state, len(trials)))
    return [read_metrics(f) for f in folders], plain(state), ends


def test_a_run_is_the_same_however_it_is_dispatched(small, tmp_path, monkeypatch):
    rows, state, ends = run(tmp_path / "one", small(steps_per_dispatch=1))
    assert ends == list(range(1, STEPS + 1))
    assert [row["step"] for row in rows[0]] == [6, 12, 13, 18, 24, 26]
    # At full length from the start: the clock of a busy machine is not the question.
    monkeypatch.setattr(Pace, "part", lambda self, steps: min(steps, self._most))
    asked = iter([False] * 8 + [True])
    with pytest.raises(Interrupted, match="stopped at step 9 of 26"):
        run(tmp_path / "loop", small(), stop=lambda: next(asked))
    # What is evaluated in one dispatch is the same in three.
    monkeypatch.setattr(feed, "BLOCK_BYTES", 8 * 14 * 4)
    again = run(tmp_path / "loop", small())
    assert again[2] == [12, 13, 18, 24, 26]
    assert again[0] == rows
    assert_same(again[1], state)


def test_dispatches_are_as_long_as_the_clock_allows():
    now = iter(np.arange(0, 100, 0.5)).__next__
    pace = Pace(64, clock=now)
    assert pace.part(20) == 1, "nothing is known of the first"
    left = jax.numpy.zeros(())
    for count in (5, 50):
        pace.sent(count, left)
    # Five steps took a second, and then fifty.
    assert pace.part(20) == 1
    pace.sent(1, left)
    assert dispatch.SECONDS == 0.25
    assert pace.part(100) == 12
    assert pace.part(30) == 10, "in three parts of one length"
