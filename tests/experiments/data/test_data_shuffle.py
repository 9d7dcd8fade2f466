"""The permutation that is computed: one of all, evenly, and in any order asked for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gnomon.experiments.data import Order
from gnomon.experiments.data.shuffle import Shuffle


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 2**32), st.integers(0, 3000))
def test_it_is_a_permutation_of_which_any_slice_can_be_had(count, seed, start):
    shuffle = Shuffle(count, np.random.default_rng(seed))
    whole = shuffle[:]
    np.testing.assert_array_equal(np.sort(whole), np.arange(count))
    np.testing.assert_array_equal(shuffle[start : start + 7], whole[start : start + 7])


def test_every_position_goes_everywhere_alike():
    # 600 permutations of 12: chi-squared of a table of fixed margins, 121 degrees.
    table = np.zeros((12, 12))
    orders = set()
    for seed in range(600):
        found = Shuffle(12, np.random.default_rng(seed))[:]
        table[np.arange(12), found] += 1
        orders.add(tuple(found))
    chi = np.sum((table - 50) ** 2 / 50) * 11 / 12
    assert 121 - 4 * np.sqrt(242) < chi < 121 + 4 * np.sqrt(242)
    assert len(orders) > 598


def test_neighbours_do_not_stay_neighbours():
    found = Shuffle(100_000, np.random.default_rng(0))[:].astype(float)
    for lag in (1, 2, 256):
        assert abs(np.corrcoef(found[:-lag], found[lag:])[0, 1]) < 0.015
    assert abs(np.corrcoef(found, np.arange(len(found)))[0, 1]) < 0.015


def test_it_has_no_most():
    found = Shuffle(2**45, np.random.default_rng(0))[2**44 : 2**44 + 4000]
    assert len(set(found.tolist())) == 4000
    assert found.min() >= 0
    assert 2**43 < found.mean() < 3 * 2**43
    assert found.max() < 2**45


def take(order, batches):
    return np.concatenate([order.next() for _ in range(batches)])


def test_an_order_without_storage_is_an_order():
    stream = take(Order(examples=77, batch=10, seed=5, stored=False), 77)
    epochs = stream.reshape(10, 77)
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), np.arange(77))
    assert len({tuple(epoch) for epoch in epochs}) == 10
    same, other = (Order(77, 10, seed, stored=False) for seed in (5, 6))
    np.testing.assert_array_equal(take(same, 77), stream)
    assert np.sum(take(other, 77) == stream) < 40


def test_a_batch_depends_on_nothing_before_it():
    order = Order(examples=2**40, batch=4, seed=1, stored=False)
    batches = [order.next() for _ in range(5)]
    resumed = Order(examples=2**40, batch=4, seed=1, stored=False)
    resumed.set_state(order.get_state() | {"next_batch": 3})
    np.testing.assert_array_equal(take(resumed, 2), np.concatenate(batches[3:]))


def test_one_order_does_not_go_on_as_the_other():
    stored, computed = (Order(20, 4, 1, stored=stored) for stored in (True, False))
    assert "stored" not in stored.get_state()
    for order, other in ((stored, computed), (computed, stored)):
        with pytest.raises(ValueError, match="stored="):
            order.set_state(other.get_state())
