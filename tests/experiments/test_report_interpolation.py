"""Reading an optimum between the points of a grid, and no more than it shows."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from gnomon.experiments.report.interpolation import CAP, lowest, neighbors

RATES = np.array([1e-3, 2e-3, 5e-3, 8e-3])
BESIDE = neighbors(RATES, ["one line"] * 4)


def test_the_bottom_of_a_parabola_is_found_on_an_uneven_grid():
    at = np.log([1.7e-3, 2.6e-3, 5.4e-3])
    losses = 2 + 0.03 * (np.log(RATES) - at[:, None]) ** 2
    where, low = lowest(np.log(RATES), losses, BESIDE)
    np.testing.assert_allclose(where, at, rtol=1e-12)
    np.testing.assert_allclose(low, 2, rtol=1e-14)


def test_at_the_end_of_a_line_and_on_a_plateau_the_grid_is_taken_as_it_is():
    """The best point first, a flat line, and a line broken by another setting."""
    flat = np.full(4, 2.0)
    for losses, beside in [
        (np.array([1.0, 2, 3, 4]), BESIDE),
        (flat, BESIDE),
        (np.array([3.0, 1, 2, 4]), neighbors(RATES, ["a", "b", "c", "d"])),
    ]:
        where, low = lowest(np.log(RATES), losses[None], beside)
        assert low[0] == losses.min()
        assert where[0] == np.log(RATES[np.argmin(losses)])


@hypothesis.given(
    st.tuples(*[st.floats(1e-6, 1e3)] * 2), st.tuples(*[st.floats(0.1, 5.0)] * 2)
)
def test_beside_a_cliff_the_gain_is_held(rises, gaps):
    """Never below the best by more than a quarter of the smaller rise, nor outside."""
    x = np.array([-gaps[0], 0.0, gaps[1]])
    losses = 1.0 + np.array([[rises[0], 0.0, rises[1]]])
    where, low = lowest(x, losses, neighbors(x, [0, 0, 0]))
    smaller = losses[0, [0, 2]].min() - 1.0
    assert 1.0 - CAP * smaller * (1 + 1e-9) <= low[0] <= 1.0
    assert x[0] <= where[0] <= x[2]
