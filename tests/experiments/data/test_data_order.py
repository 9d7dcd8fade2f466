"""The order of examples: fair, seeded, and resumable at any batch."""

import json
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.experiments.data import Order

SIZES = st.integers(1, 40).flatmap(
    lambda examples: st.tuples(st.just(examples), st.integers(1, examples))
)
SEEDS = st.integers(0, 2**32 - 1)


def take(order, batches):
    return np.concatenate([order.next() for _ in range(batches)])


@settings(max_examples=30, deadline=None)
@given(SIZES, SEEDS)
def test_every_epoch_is_a_permutation(sizes, seed):
    examples, batch = sizes
    # This many batches are a whole number of epochs, whatever the remainder.
    stream = take(Order(examples, batch, seed), 3 * examples)
    epochs = stream.reshape(-1, examples)
    assert len(epochs) == 3 * batch
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(examples))


@settings(max_examples=30, deadline=None)
@given(SIZES, SEEDS, st.integers(0, 30), st.integers(0, 30))
def test_resumes_exactly_from_json(sizes, seed, before, elsewhere):
    original = Order(*sizes, seed)
    for _ in range(before):
        original.next()
    state = json.loads(json.dumps(original.get_state()))
    resumed = Order(*sizes, seed)
    for _ in range(elsewhere):
        resumed.next()
    resumed.set_state(state)
    np.testing.assert_array_equal(take(original, 20), take(resumed, 20))
    assert original.get_state() == resumed.get_state()


def test_a_batch_is_int64_of_the_batch_size():
    batch = Order(examples=10, batch=4, seed=0).next()
    assert batch.dtype == np.int64
    assert batch.shape == (4,)


def test_same_seed_same_order_and_other_seed_other_order():
    streams = [take(Order(1000, 100, seed), 10) for seed in (7, 7, 8)]
    np.testing.assert_array_equal(streams[0], streams[1])
    # Two random permutations of 1000 agree in about one place.
    assert np.sum(streams[0] == streams[2]) < 20


def test_epochs_differ_and_do_not_return_under_a_neighbouring_seed():
    # A seed that only shifts the epochs would give runs "of different seeds" the
    # same permutations.
    epochs = {
        (seed, epoch): values
        for seed in range(4)
        for epoch, values in enumerate(take(Order(500, 50, seed), 40).reshape(4, 500))
    }
    keys = list(epochs)
    for i, one in enumerate(keys):
        for other in keys[:i]:
            assert np.sum(epochs[one] == epochs[other]) < 20, (one, other)


@pytest.mark.parametrize("name", ["examples", "batch", "seed"])
def test_a_state_of_another_order_is_refused(name):
    arguments = {"examples": 20, "batch": 4, "seed": 1}
    state = Order(**arguments).get_state()
    other = Order(**{**arguments, name: arguments[name] + 1})
    with pytest.raises(ValueError, match=rf"{name}=\d+, this run has {name}="):
        other.set_state(state)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1, 0), "batch=1 .* which is 0"),
        ((5, 6, 0), "batch=6 .* which is 5"),
        ((5, 0, 0), "batch=0"),
        ((5, 1, -1), "seed=-1"),
        ((5, 1, 2**32), "seed=4294967296"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Order(*arguments)


def test_a_batch_belongs_to_its_taker():
    order, untouched = Order(10, 4, 0), Order(10, 4, 0)
    for _ in range(6):
        batch = order.next()
        np.testing.assert_array_equal(batch, untouched.next())
        batch[:] = -1


@pytest.mark.parametrize(("examples", "batch"), [(4000, 128), (170_000, 16)])
def test_fast_enough_to_feed_a_small_model(examples, batch):
    order = Order(examples, batch, seed=0)
    # The best of five, for a machine that does other things as well.
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        take(order, 100)
        seconds.append(time.perf_counter() - start)
    assert 100 / min(seconds) > 400
