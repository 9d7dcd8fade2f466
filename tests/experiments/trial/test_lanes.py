"""Lanes: many trials in one program equal each trial alone."""

import jax
import numpy as np
import pytest

from gnomon.experiments.config.grid import over, product
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import make_trials
from gnomon.experiments.data import load
from gnomon.experiments.trial.abstract import trace
from gnomon.experiments.trial.cost import flops_per_step
from gnomon.experiments.trial.lanes import compile_lanes, hypers_of, seeds_of
from gnomon.experiments.trial.step import NEVER

pytestmark = pytest.mark.usefixtures("optax_promotion")
STEPS = 5


def train(lanes, trials, dataset):
    """Runs a few steps of some trials as lanes of one program."""
    seeds, distinct, which = seeds_of(trials)
    hypers = hypers_of(trials)
    state = lanes.init(seeds, hypers)
    for step in range(STEPS):
        # Each seed sees its own examples, whoever shares the program with it.
        index = [np.arange(4) + 7 * seed + 4 * step for seed in distinct]
        batches = {k: np.stack([v[i] for i in index]) for k, v in dataset.train.items()}
        state = lanes.step(state, batches, which, hypers)
    return jax.device_get(state._replace(key=jax.random.key_data(state.key)))


def with_rates(config, *rates):
    return make_trials(config, over("optimizer.learning_rate", rates))


@pytest.fixture(scope="module")
def dataset(tiny):
    return load(tiny()["data"])


@pytest.fixture(scope="module")
def solo(tiny, dataset, optax_promotion):
    """Trains one trial alone; the numbers it is given are the program's inputs."""
    lanes = compile_lanes(with_rates(tiny(), 1e-3), dataset)
    return lambda trial: train(lanes, [trial], dataset)


@pytest.fixture(scope="module")
def three(tiny, dataset, optax_promotion):
    """The program of three trials that differ in their learning rates."""
    return compile_lanes(with_rates(tiny(), 1e-3, 3e-3, 1e-2), dataset)


def assert_equal_runs(together, lane, solo, rate):
    """Compares a lane to a solo run of the same trial.

    They share nothing but the compilation, and XLA fuses and batches the two programs
    differently: sums round in another order. Five Adam steps then agree to 2e-4 of
    the distance they can move a weight, ``STEPS * rate``.
    """
    for a, b in zip(
        jax.tree.leaves(together.params), jax.tree.leaves(solo.params), strict=True
    ):
        np.testing.assert_allclose(a[lane], b[0], rtol=0, atol=2e-4 * STEPS * rate)


@pytest.mark.parametrize("how", ["map", "vmap"])
def test_lanes_equal_solo_runs(tiny, dataset, solo, how, monkeypatch):
    """With two devices for four lanes, so that each device has lanes to map over."""
    devices = jax.devices()[:2]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    sweep = product(over("optimizer.learning_rate", [1e-3, 1e-2]), over("seed", [0, 1]))
    grid = make_trials(tiny(), sweep)
    together = train(compile_lanes(grid, dataset, how), grid, dataset)
    for lane in (0, 3):
        rate = grid[lane].config["optimizer"]["learning_rate"]
        assert_equal_runs(together, lane, solo(grid[lane]), rate)


def test_a_diverging_lane_changes_no_other(tiny, dataset, solo, three):
    """The same program with a healthy middle lane: the others are equal to the bit."""
    sick, healthy = (
        train(three, with_rates(tiny(), 1e-3, rate, 1e-2), dataset)
        for rate in (1e30, 3e-3)
    )
    assert sick.diverged_at.tolist() == [NEVER, sick.diverged_at[1], NEVER]
    assert 0 <= sick.diverged_at[1] < STEPS
    assert not np.isfinite(sick.params["embed"]["embedding"][1]).all()
    for lane in (0, 2):
        for a, b in zip(
            jax.tree.leaves(sick.params), jax.tree.leaves(healthy.params), strict=True
        ):
            np.testing.assert_array_equal(a[lane], b[lane])
    assert_equal_runs(sick, 0, solo(*with_rates(tiny(), 1e-3)), 1e-3)


def test_lanes_are_spread_over_devices(three):
    embedding = three.state.params["embed"]["embedding"]
    assert embedding.sharding.num_devices == 3
    assert three.bytes > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 10**6}, "config.batch=1000000: the data has only"),
        ({"evaluate__batch": 10**6}, "config.evaluate.batch=1000000"),
        ({"model__head_dim": 5}, "head_dim"),
        (
            {"task": "gnomon.experiments.tasks.classification"},
            "TransformerLM with optimizer optax.adamw: KeyError",
        ),
    ],
)
def test_what_cannot_run_is_refused_before_compilation(tiny, changes, message):
    config = tiny(**changes)
    with pytest.raises(ConfigError, match=message):
        trace(config, load(config["data"]))


def test_an_optimizer_that_branches_on_a_number_is_told_the_fix(
    tiny, tmp_path, monkeypatch
):
    (tmp_path / "branching.py").write_text(
        "import optax\n"
        "def sgd(learning_rate, decay=0.0):\n"
        "    if decay > 0:\n"
        "        return optax.adamw(learning_rate, weight_decay=decay)\n"
        "    return optax.sgd(learning_rate)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    optimizer = {"name": "branching.sgd", "learning_rate": 0.1, "decay": 0.1}
    config = tiny(optimizer=optimizer)
    dataset = load(config["data"])
    with pytest.raises(ConfigError, match=r"name it in config\.static"):
        trace(config, dataset)
    trace(config | {"static": ["decay"]}, dataset)


def test_flops_of_a_step_follow_the_model(tiny):
    config = tiny()
    dataset = load(config["data"])
    once = flops_per_step(config, dataset)
    assert flops_per_step(config | {"batch": 8}, dataset) == pytest.approx(2 * once)
    parameters = sum(
        leaf.size for leaf in jax.tree.leaves(trace(config, dataset).params)
    )
    tokens = config["batch"] * 16
    # 6 N D, attention aside: it is small at this length.
    assert once == pytest.approx(6 * parameters * tokens, rel=0.2)
