"""Correction for several comparisons, against SciPy and by simulation."""

import numpy as np
import pytest
from scipy import stats

from gnomon.scaling.comparison.multiple import holm, p_value


@pytest.mark.parametrize("n", [3, 5, 8])
def test_for_a_mean_the_p_value_is_the_t_tests(n):
    rng = np.random.default_rng(n)
    values = 0.3 + rng.standard_normal(n)
    weights = rng.multinomial(n, np.full(n, 1 / n), size=200_000) / n
    found = p_value(values.mean(), weights @ values, n)
    np.testing.assert_allclose(found, stats.ttest_1samp(values, 0).pvalue, rtol=0.02)


def test_what_has_no_interval_has_no_p_value_and_what_has_no_bound_is_not_shown():
    draws = np.array([0.1, 0.2, -np.inf])
    assert np.isnan(p_value(0.1, draws, n=1))
    assert np.isnan(p_value(np.nan, draws, n=3))
    assert p_value(0.1, draws, n=3) == 1.0
    assert p_value(0.0, np.zeros(9), n=3) == 1.0


def test_holm_keeps_the_family_at_its_level():
    """Six true nulls: one at least is called in 5 % of families, not in 26 %."""
    rng = np.random.default_rng(0)
    families = rng.uniform(size=(20_000, 6))
    wrong = np.mean([min(holm(family)) < 0.05 for family in families[:4000]])
    assert 0.04 < wrong < 0.06
    assert np.mean(families.min(axis=1) < 0.05) > 0.25


def test_holm_keeps_the_order_and_is_milder_than_bonferroni():
    p = [0.004, 0.03, 0.011, 0.2]
    adjusted = holm(p)
    assert np.argsort(adjusted).tolist() == np.argsort(p).tolist()
    np.testing.assert_allclose(adjusted, [0.016, 0.06, 0.033, 0.2])
