"""Trials: ids that depend on what is computed, groups that share a program."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gnomon.experiments.config.grid import chain, over, prefix, product, zipped
from gnomon.experiments.config.resolve import ConfigError
from gnomon.experiments.config.trials import (
    OPERATIONAL,
    groups,
    make_trial,
    make_trials,
    split,
)


def test_an_id_is_a_pure_function_of_what_is_computed(tiny):
    config = tiny()
    shuffled = json.loads(json.dumps(config, sort_keys=True))
    assert make_trial(config).id == make_trial(shuffled).id
    for field in OPERATIONAL:
        assert make_trial(config | {field: "other"}).id == make_trial(config).id
    assert make_trial(tiny(seed=1)).id != make_trial(config).id
    assert make_trial(tiny(optimizer__b1=0.8)).id != make_trial(config).id


def test_trials_of_one_program_differ_only_in_traced_numbers(tiny):
    sweep = product(
        over("model.width", [8, 16]),
        over("optimizer.learning_rate", [1e-3, 1e-2]),
        over("seed", [0, 1, 2]),
    )
    grouped = groups(make_trials(tiny(), sweep))
    assert [len(trials) for trials in grouped.values()] == [6, 6]
    for trials in grouped.values():
        assert len({trial.config["model"]["width"] for trial in trials}) == 1


def test_lengths_are_groups_apart_but_one_program(tiny):
    trials = make_trials(tiny(), over("steps", [12, 24]))
    assert len(groups(trials)) == 2
    assert split(trials[0].config)[0] == split(trials[1].config)[0]


def test_a_static_field_is_not_traced(tiny):
    static, traced = split(tiny(static=["b1"]))
    assert static["optimizer"]["b1"] == 0.9
    assert "optimizer.b1" not in traced
    assert "optimizer.learning_rate" in traced


@pytest.mark.parametrize(
    ("sweep", "message"),
    [
        ([{}, {"optimizer.b9": 0.5}], r"trial 1 \{'optimizer.b9': 0.5\}: config.opt"),
        ([{"seed": 1}, {"seed": 1}], "trial 1 .* already has this trial"),
        ([], "yields no trials"),
    ],
)
def test_a_bad_sweep_is_refused_by_trial_and_field(tiny, sweep, message):
    with pytest.raises(ConfigError, match=message):
        make_trials(tiny(), sweep)


fields = st.sampled_from(["a", "b", "c", "d"])
values = st.lists(st.integers(), min_size=1, max_size=4, unique=True)


@given(values, values)
def test_a_product_has_every_pair_once(first, second):
    pairs = [(o["a"], o["b"]) for o in product(over("a", first), over("b", second))]
    assert pairs == [(x, y) for x in first for y in second]


@given(values)
def test_combinators_compose(numbers):
    one, two = over("a", numbers), over("b", numbers)
    assert zipped(one, two) == [{"a": n, "b": n} for n in numbers]
    assert len(chain(one, two)) == 2 * len(numbers)
    assert prefix("x", one) == over("x.a", numbers)


def test_two_factors_may_not_set_one_field():
    with pytest.raises(ValueError, match="same field: a"):
        product(over("a", [1]), over("a", [2]))
