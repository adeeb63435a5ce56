"""Rates and means against scipy's own intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rlaif_framework.statistics import Estimate, estimate_mean, estimate_rate


@pytest.mark.parametrize(
    ("wins", "count"), [(0, 1), (1, 1), (0, 40), (40, 40), (1, 2), (7, 10), (50, 100), (72, 160), (9_999, 10_000)]
)
def test_a_rate_has_the_wilson_interval(wins: int, count: int) -> None:
    found = estimate_rate(wins, count)
    assert found is not None
    expected = stats.binomtest(wins, count).proportion_ci(method="wilson")
    assert (found.value, found.count) == (wins / count, count)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_the_wilson_interval_agrees_with_a_worked_example() -> None:
    found = estimate_rate(15, 20)  # worked by hand with z = 1.959964
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.5313, 0.8881), abs=5e-5)


def test_a_tie_is_half_a_win() -> None:
    half, low, high = estimate_rate(10.5, 20), estimate_rate(10, 20), estimate_rate(11, 20)
    assert half is not None
    assert low is not None
    assert high is not None
    assert half.value == 10.5 / 20
    assert low.low < half.low < high.low
    assert low.high < half.high < high.high


def test_the_interval_covers_the_true_rate_about_95_times_in_100() -> None:
    count = 40
    found = [e for wins in range(count + 1) if (e := estimate_rate(wins, count)) is not None]
    coverage = [
        sum(stats.binom.pmf(wins, count, rate) for wins, e in enumerate(found) if e.low <= rate <= e.high)
        for rate in np.linspace(0.05, 0.95, 181)
    ]
    assert 0.945 < np.mean(coverage) < 0.96
    assert min(coverage) > 0.88


def test_beating_chance_needs_the_whole_interval_above_one_half() -> None:
    assert Estimate(0.6, 0.51, 0.7, 100).beats_chance
    assert not Estimate(0.6, 0.5, 0.7, 100).beats_chance
    assert not Estimate(0.4, 0.3, 0.5, 100).beats_chance


@pytest.mark.parametrize("values", [[1.0, 2.0], [0.1, 0.4, 0.35, 0.8], [-3.0, 5.0, 1e3, 0.0, 2.5]])
def test_a_mean_has_the_student_t_interval(values: list[float]) -> None:
    found = estimate_mean(values)
    assert found is not None
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(np.mean(values))
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.count == len(values)


@pytest.mark.parametrize("values", [[2.5], [0.1, 0.1, 0.1], [0.0] * 50])
def test_a_mean_without_spread_is_its_own_interval_and_no_nan(values: list[float]) -> None:
    found = estimate_mean(values)
    assert found is not None
    assert not math.isnan(found.low)
    assert (found.low, found.high) == pytest.approx((values[0], values[0]))


def test_nothing_observed_is_none_and_no_division_by_zero() -> None:
    assert estimate_rate(0, 0) is None
    assert estimate_mean([]) is None
