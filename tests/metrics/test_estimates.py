"""Rates and means against scipy's own intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rlaif_framework import Comparison, Evidence, Preference, Prompt
from rlaif_framework.metrics.estimates import Estimate, estimate_mean, estimate_rate, estimate_rate_at
from rlaif_framework.metrics.wins import WinRate, measure_wins


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


def test_a_regression_on_two_groups_gives_the_rate_of_each_and_its_interval() -> None:
    wins, features = [1.0] * 12 + [0.0] * 8 + [1.0] * 21 + [0.0] * 9, [1.0] * 20 + [2.0] * 30
    for at, rate, count in ((1.0, 12 / 20, 20), (2.0, 21 / 30, 30)):
        found = estimate_rate_at(wins, features, at)
        assert found is not None
        logit, error = math.log(rate / (1 - rate)), 1.959964 / math.sqrt(count * rate * (1 - rate))
        expected = [1 / (1 + math.exp(-(logit + shift))) for shift in (0, -error, error)]
        assert [found.value, found.low, found.high] == pytest.approx(expected, abs=1e-5)
        assert found.count == 50


def test_a_tie_counts_as_half_a_win_in_a_regression() -> None:
    ties = estimate_rate_at([0.5, 0.5, 1.0, 0.0, 1.0], [1.0, 2.0, 1.5, 3.0, 0.5], 1.0)
    twice = estimate_rate_at([1, 0, 1, 0, 1, 1, 0, 0, 1, 1], [1, 1, 2, 2, 1.5, 1.5, 3, 3, 0.5, 0.5], 1.0)
    assert ties is not None
    assert twice is not None
    assert ties.value == pytest.approx(twice.value, abs=1e-6)


@pytest.mark.parametrize(
    ("wins", "features"),
    [
        ([], []),
        ([1.0, 1.0], [0.5, 2.0]),
        ([0.0, 0.0], [0.5, 2.0]),
        ([1.0, 0.0, 0.5], [1.0, 1.0, 1.0]),
        ([1.0, 1.0, 0.0, 0.0], [1.5, 2.0, 0.5, 0.8]),
        ([1.0, 1.0, 0.0, 0.0], [1.0, 2.0, 0.5, 1.0]),
    ],
    ids=["nothing", "all won", "all lost", "one feature", "told apart", "told apart but for one"],
)
def test_a_regression_without_a_best_curve_is_none(wins: list[float], features: list[float]) -> None:
    assert estimate_rate_at(wins, features, 1.0) is None


def test_the_interval_of_a_regression_covers_the_true_rate_about_95_times_in_100() -> None:
    random, true, covered = np.random.default_rng(0), 0.6, []
    for _ in range(400):
        ratios = np.exp(random.normal(0.3, 0.4, 150))
        chances = 1 / (1 + np.exp(-(math.log(true / (1 - true)) + 2 * (ratios - 1))))
        found = estimate_rate_at(list((random.random(150) < chances).astype(float)), list(ratios), 1.0)
        assert found is not None
        covered.append(found.low <= true <= found.high)
    assert 0.92 < np.mean(covered) < 0.98


def judge(lengths: list[tuple[int, int]], firsts: list[float | None]) -> WinRate:
    comparisons = [
        Comparison(str(i), Prompt(str(i), f"post {i}", "?"), ("a" * a, "b" * b)) for i, (a, b) in enumerate(lengths)
    ]
    preferences = [
        Preference(str(i), None if first is None else (first, 1 - first), Evidence("judge"))
        for i, first in enumerate(firsts)
    ]
    return measure_wins("new", "old", "judge", comparisons, preferences)


def test_a_judge_that_likes_length_and_nothing_else_has_no_winner_once_adjusted() -> None:
    random = np.random.default_rng(0)
    lengths = [(int(a), int(b)) for a, b in random.integers((60, 40), (120, 100), (300, 2))]
    chances = [1 / (1 + math.exp(-4 * (a / b - 1))) for a, b in lengths]
    found = judge(lengths, [float(random.random() < chance) for chance in chances])
    assert found.rate is not None
    assert found.rate.low > 0.6
    assert found.length_adjusted is not None
    assert found.length_adjusted.low < 0.5 < found.length_adjusted.high


def test_an_empty_response_and_one_that_was_not_judged_are_not_adjusted_for() -> None:
    lengths = [(0, 5), (10, 5), (5, 5), (4, 8), (9, 3), (5, 0)]
    found = judge(lengths, [0.9, 0.8, 0.5, 0.6, 0.2, None])
    assert found.rate is not None
    assert found.length_adjusted is not None
    assert (found.rate.count, found.length_adjusted.count, found.ties) == (5, 4, 1)
