import math

import numpy as np
import pytest

from fisher_jax.report.statistics import (
    correlate,
    smooth,
    summarise,
)


def test_mean_and_sample_deviation():
    # Deviations from 4 are -2, 0, 2: variance 8/2 = 4.
    summary = summarise([2.0, 4.0, 6.0, math.nan, None])
    assert summary == (4.0, 2.0, 3)


def test_one_value_has_no_deviation():
    summary = summarise([5.0])
    assert (summary.mean, summary.n) == (5.0, 1)
    assert math.isnan(summary.std)
    assert summarise([math.nan]) is None


def test_smoothing_by_hand():
    # decay 1/2: 4; (4/2 + 8)/(1 + 1/2); (4/4 + 8/2 + 1)/(1 + 1/2 + 1/4)
    expected = [4.0, 10 / 1.5, 6 / 1.75]
    x, values = np.array([0.0, 1.0, 2.0]), np.array([4.0, 8.0, 1.0])
    np.testing.assert_allclose(smooth(x, values, 0.5), expected)
    np.testing.assert_array_equal(smooth(x, values, 0.0), values)
    # Two epochs apart the earlier value weighs 1/4: (4/4 + 1) / (1 + 1/4).
    assert smooth(np.array([0.0, 2.0]), np.array([4.0, 1.0]), 0.5)[1] == 2 / 1.25


def test_correlations_by_hand():
    # Covariance of (1,2,3,4) and (1,3,2,9): deviations -1.5 -.5 .5 1.5 and
    # -2.75 -.75 -1.75 5.25: 4.125 + .375 - .875 + 7.875 = 11.5; squares 5, 38.75.
    # Ranks 1 2 3 4 and 1 3 2 4: rho = 1 - 6 * 2 / (4 * 15) = 0.8.
    found = correlate(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 9]))
    assert found.pearson == pytest.approx(11.5 / math.sqrt(5 * 38.75))
    assert found.spearman == pytest.approx(0.8)
    assert found.n == 4


@pytest.mark.parametrize(
    ("x", "y"), [([1.0, 2], [1.0, 2]), ([1.0, 1, 1], [1.0, 2, 3]), ([], [])]
)
def test_too_little_to_correlate(x, y):
    assert correlate(np.array(x), np.array(y)) is None


def test_points_without_a_value_are_left_out():
    x, y = np.array([1.0, 2, 3, math.nan]), np.array([3.0, 2, 1, 99])
    assert correlate(x, y).spearman == pytest.approx(-1)
