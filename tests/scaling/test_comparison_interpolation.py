"""Reading an optimum between the points of a grid, and no more than it shows."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from gnomon.scaling.comparison.interpolation import lowest, neighbors

RATES = np.array([1e-3, 2e-3, 5e-3, 8e-3])
BESIDE = neighbors(RATES, ["one line"] * 4)
GAP, RISE = st.floats(0.1, 5.0), st.just(0.0) | st.floats(1e-6, 1e3)


def _read(x, losses):
    """Where a single line's losses are lowest, and how low."""
    where, low = lowest(x, np.array([losses]), neighbors(x, [0] * len(x)))
    return where[0], low[0]


def _bottom(x, losses, ends):
    """The lowest value between two ends of the parabola through three points."""
    fit = np.polyfit(x, losses, 2)
    inside = [np.clip(-fit[1] / (2 * fit[0]), *ends)] if fit[0] > 0 else []
    return np.polyval(fit, [*ends, *inside]).min()


@hypothesis.given(st.tuples(GAP, GAP, GAP, GAP), st.floats(0, 1))
def test_a_parabola_is_read_exactly_wherever_its_bottom_lies(gaps, share):
    """Midway between two points too; in the gaps at the ends less is known."""
    x = np.cumsum([0.0, *gaps])
    at = x[1] + share * (x[3] - x[1])
    where, low = _read(x, 2 + 0.03 * (x - at) ** 2)
    np.testing.assert_allclose(low, 2, rtol=1e-12)
    np.testing.assert_allclose(where, at, atol=1e-9)


def test_draws_are_read_apart():
    at = np.log([2e-3, 2.6e-3, np.sqrt(2e-3 * 5e-3), 4e-3])
    losses = 2 + 0.03 * (np.log(RATES) - at[:, None]) ** 2
    where, low = lowest(np.log(RATES), losses, BESIDE)
    np.testing.assert_allclose(where, at, rtol=1e-12)
    np.testing.assert_allclose(low, 2, rtol=1e-14)


def test_in_a_gap_at_the_end_a_quarter_of_the_rise_is_the_most():
    """Which is all there is to gain up to 0.309 of the gap from the best point."""
    x = np.arange(3.0)
    for share, gain in [(0.1, 0.01), (0.3, 0.09), (0.4, 0.05), (0.499, 5e-4)]:
        losses = 2 + (x - 1 + share) ** 2
        where, low = _read(x, losses)
        np.testing.assert_allclose(losses.min() - low, gain, rtol=1e-9)
        assert 1 - share - 1e-12 <= where <= 1


@pytest.mark.parametrize(
    "losses",
    [
        [1.0, 2.0, 3.0, 4.0],  # rising
        [4.0, 3.0, 2.0, 1.0],  # falling
        [2.0, 2.0, 2.0, 2.0],
        [2.0, 2.0, 2.0, 9.0],  # flat up to a cliff
        [3.2, 2.3, 1.0, 1e3],  # falling, faster and faster, up to a cliff
        [1e3, 1.0, 1.5, 2.0],  # rising from the foot of a cliff
    ],
)
def test_where_no_bottom_shows_the_grid_is_taken_as_it_is(losses):
    where, low = _read(np.log(RATES), losses)
    assert low == min(losses)
    assert where == np.log(RATES[np.argmin(losses)])


def test_a_line_of_its_own_is_a_single_point():
    where, low = lowest(
        np.log(RATES), np.array([[3.0, 1, 2, 4]]), neighbors(RATES, list("abcd"))
    )
    assert (where[0], low[0]) == (np.log(RATES[1]), 1.0)


@hypothesis.given(st.tuples(GAP, GAP, GAP), st.tuples(RISE, RISE, RISE))
def test_of_the_two_parabolas_the_one_that_gains_less_is_read(gaps, rises):
    """The best point second, its bottom toward the third, against fitted parabolas."""
    x = np.cumsum([0.0, *gaps])
    left, near, beyond = rises
    hypothesis.assume(near / gaps[1] ** 2 < left / gaps[0] ** 2)
    losses = 1.0 + np.array([left, 0.0, near, beyond])
    fits = [_bottom(x[i : i + 3], losses[i : i + 3], x[1:3]) for i in (0, 1)]
    np.testing.assert_allclose(_read(x, losses)[1], max(fits), rtol=1e-6, atol=1e-6)


@hypothesis.given(
    st.lists(GAP, min_size=2, max_size=5), st.lists(RISE, min_size=6, max_size=6)
)
def test_never_above_the_best_point_nor_far_below_it(gaps, losses):
    """Within half a gap; lower by what both points beyond it would allow at most."""
    x = np.cumsum([0.0, *gaps])
    losses = 1.0 + np.array(losses[: len(x)])
    where, low = _read(x, losses)
    best = np.argmin(losses)
    if where == x[best]:
        assert low == losses[best]
        return
    near = best + (1 if where > x[best] else -1)
    a = abs(x[near] - x[best])
    assert 0 < abs(where - x[best]) <= a / 2 * (1 + 1e-9)
    bounds = []
    for own, other in [(best, near), (near, best)]:
        outer = 2 * own - other
        if 0 <= outer < len(x):
            b = abs(x[outer] - x[own])
            rise = losses[outer] - losses[best]
            bounds.append(rise * a**2 / (4 * b * (a + b)))
        else:
            bounds.append((losses[near] - losses[best]) / 4)
    assert losses[best] - min(bounds) - 1e-9 <= low <= losses[best]


@hypothesis.given(st.tuples(GAP, GAP, GAP), st.tuples(RISE, RISE))
def test_which_of_two_equal_points_is_called_best_does_not_matter(gaps, rises):
    """So the reading does not jump where the best point changes."""
    x = np.cumsum([0.0, *gaps])
    losses = np.array([rises[0], 0.0, 0.0, rises[1]])
    where, low = _read(x, losses)
    mirrored, lower = _read(-x[::-1], losses[::-1])
    np.testing.assert_allclose(lower, low, rtol=1e-12)
    if low < 0:
        np.testing.assert_allclose(mirrored, -where, rtol=1e-9)
