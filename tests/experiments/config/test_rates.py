"""A learning rate is found, scheduled and swept wherever an optimizer has it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gnomon.experiments.config import validate
from gnomon.experiments.config.grid import chain, over, product
from gnomon.experiments.config.rates import peaks
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import groups, make_trials, split
from gnomon.experiments.records.runs import Run, table
from gnomon.experiments.report.knob import knob_of
from gnomon.experiments.schedules import warmup_cosine
from gnomon.experiments.trial.optimizer import learning_rate, make_optimizer

SGD = {"name": "optax.sgd", "learning_rate": 0.5}
NESTED = {
    "name": "gnomon.optimizers.per_layer",
    "inner": {"name": "gnomon.optimizers.bucket_leaves", "inner": SGD, "max_size": 8},
}
BALL = {
    "name": "gnomon.optimizers.hyperball",
    "direction": {"name": "optax.trace", "decay": 0.0},
    "learning_rate": 0.5,
    "free_learning_rate": 0.25,
}
RATE = "optimizer.inner.inner.learning_rate"


def steps_of(trial, count=4):
    """The updates of a gradient of ones, of an input that is a vector."""
    static, hypers = split(trial.config)

    @jax.jit
    def run(hypers):
        optimizer = make_optimizer(static, hypers)
        w = {"bias": jnp.ones(2)}
        state, updates = optimizer.init(w), []
        for _ in range(count):
            update, state = optimizer.update(w, state, w)
            updates.append(update["bias"][0])
        rate = learning_rate(static, hypers)
        return jnp.stack(updates), jnp.stack([rate(step) for step in range(count)])

    with jax.numpy_dtype_promotion("standard"):
        return run(hypers)


@pytest.mark.parametrize("spec", [SGD, NESTED])
def test_every_depth_follows_the_schedule(tiny, spec):
    (trial,) = make_trials(tiny(optimizer=spec, steps=4), [{}])
    updates, logged = steps_of(trial)
    wanted = [warmup_cosine(0.5, 4)(step) for step in range(4)]
    np.testing.assert_allclose(logged, wanted, rtol=1e-6)
    np.testing.assert_allclose(updates, [-rate for rate in wanted], rtol=1e-6)
    assert len({float(rate) for rate in wanted}) > 2


def test_a_rate_of_another_name_stays_as_it_is(tiny):
    """Leaves that hyperball does not hold move by a rate of their own, a constant."""
    (trial,) = make_trials(tiny(optimizer=BALL, steps=4), [{}])
    updates, logged = steps_of(trial)
    np.testing.assert_allclose(updates, -0.25)
    np.testing.assert_allclose(logged[-1], warmup_cosine(0.5, 4)(3), rtol=1e-6)


def test_the_learning_rate_is_that_of_the_least_depth():
    outer = {"name": "outer", "learning_rate": 0.125, "inner": SGD}
    spec = {"name": "wrapper", "inner": outer}
    assert list(peaks(spec).values()) == [0.125, 0.5]
    outer["learning_rate"] = None
    assert peaks(spec) == {RATE: 0.5}
    # What is no component has no learning rate of the schedule.
    assert peaks({"name": "f", "options": {"learning_rate": 1.0}}) == {}


def test_a_sweep_over_a_nested_rate_is_one_program(tiny):
    trials = make_trials(tiny(optimizer=NESTED), over(RATE, [0.1, 0.2, 0.4]))
    assert len(groups(trials)) == 1
    assert [split(trial.config)[1][RATE] for trial in trials] == [0.1, 0.2, 0.4]


def test_one_sweep_fits_optimizers_of_every_depth(tiny):
    lines = [{"label": "plain"}, {"label": "nested", "optimizer": NESTED}]
    rates = over("optimizer.learning_rate", [0.1, 0.2])
    trials = make_trials(tiny(), product(chain(lines), rates))
    found = [next(iter(peaks(trial.config["optimizer"]).items())) for trial in trials]
    fields = ["optimizer.learning_rate"] * 2 + [RATE] * 2
    assert found == list(zip(fields, [0.1, 0.2] * 2, strict=True))

    done = {"status": "finished", "final": {"loss": 1.0}}
    columns = table([Run(t.id, t.label, 0, t.config, done, "") for t in trials])
    knobs = [knob_of(columns, np.array(rows)) for rows in ([0, 1], [2, 3])]
    assert [knob.field for knob in knobs] == fields[::2]
    assert [knob.words for knob in knobs] == ["learning rate"] * 2


def test_an_optimizer_without_a_rate_is_given_none(tiny):
    config = tiny(optimizer={"name": "gnomon.optimizers.sps"})
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate: unknown field"):
        make_trials(config, over("optimizer.learning_rate", [0.1]))
    (trial,) = make_trials(config, [{}])
    assert learning_rate(*split(trial.config)) is None


def test_a_peak_of_the_schedule_is_taken_from_where_the_rate_is(tiny):
    schedule = {"name": "gnomon.experiments.schedules.constant", "peak": 0.1}
    with pytest.raises(ConfigError, match=rf"it is taken from config\.{RATE}"):
        validate(tiny(optimizer=NESTED) | {"schedule": schedule})
    with pytest.raises(ConfigError, match=rf"config\.{RATE}=-1.0: needs"):
        make_trials(tiny(optimizer=NESTED), over(RATE, [-1.0]))
