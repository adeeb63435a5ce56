"""Sample sizes against the exact power of the test that a Wilson interval is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from rlaif_framework.metrics import correct_win_rate, detectable_difference, required_labels, required_pairs
from rlaif_framework.metrics.estimates import estimate_rate


def exact_power(pairs: int, rate: float) -> float:
    """Probability that the interval of a win rate does not include 50 %."""
    found = [estimate_rate(wins, pairs) for wins in range(pairs + 1)]
    outside = [x is not None and not x.low <= 0.5 <= x.high for x in found]
    return float(np.sum(stats.binom.pmf(np.arange(pairs + 1), pairs, rate)[outside]))


def test_the_number_of_pairs_is_that_of_textbooks() -> None:
    assert required_pairs(0.1) == 194  # one proportion, 60 % against 50 %, two-sided 5 %, power 80 %
    assert required_pairs(0.05) == 783


@pytest.mark.parametrize("difference", [0.05, 0.1, 0.15, 0.2])
def test_these_pairs_have_the_power(difference: float) -> None:
    # Averaged over a few sizes, because the power of a test of counts rises in jumps.
    needed = required_pairs(difference)
    near = range(needed - 5, needed + 6)
    assert np.mean([exact_power(pairs, 0.5 + difference) for pairs in near]) == pytest.approx(0.8, abs=0.015)
    assert np.mean([exact_power(pairs, 0.5 - difference) for pairs in near]) == pytest.approx(0.8, abs=0.015)


@pytest.mark.parametrize("pairs", [10, 50, 150, 1000])
def test_the_detectable_difference_is_the_one_that_needs_these_pairs(pairs: int) -> None:
    found = detectable_difference(pairs)
    assert found is not None
    assert required_pairs(found * 1.0001) == pairs
    assert required_pairs(found * 0.9999) == pairs + 1


@pytest.mark.parametrize("pairs", [0, 1, 2, 3])
def test_a_few_pairs_detect_nothing(pairs: int) -> None:
    assert detectable_difference(pairs) is None


@pytest.mark.parametrize("agreement", [0.6, 0.7, 0.8, 0.9])
@pytest.mark.parametrize("pairs", [388, 1000, 100_000])
def test_labels_are_a_few_more_than_in_the_limit_of_many(pairs: int, agreement: float) -> None:
    # Where (1 - r^2) / labels + r^2 / pairs is the same as 1 / pairs without a judge.
    squared = (2 * agreement - 1) ** 2
    limit = (1 - squared) / (1 / 193.847 - squared / pairs)
    found = required_labels(0.1, pairs, agreement)
    assert found is not None
    assert limit < found < limit + 8


def test_a_better_judge_needs_fewer_labels() -> None:
    assert required_labels(0.1, 1000, 0.5) == 196  # that of pairs without a judge, and two for Student's t
    found = [required_labels(0.1, 1000, agreement) or 0 for agreement in (0.6, 0.7, 0.8, 0.9, 1.0)]
    assert found == sorted(found, reverse=True)
    assert found[-1] < 30


def test_the_labels_of_a_simulated_judge_have_the_power() -> None:
    random = np.random.default_rng(0)
    labels = required_labels(0.1, 500, 0.9)
    assert labels is not None
    significant = 0
    for _ in range(600):
        human = (random.random(500) < 0.6).astype(float)
        judge = np.where(random.random(500) < 0.9, human, 1 - human)
        found = correct_win_rate(judge.tolist(), [*human[:labels].tolist(), *[None] * (500 - labels)], range(500))
        assert found is not None
        significant += not found.rate.low <= 0.5 <= found.rate.high
    assert significant / 600 == pytest.approx(0.8, abs=0.04)


def test_too_few_pairs_need_more_than_labels() -> None:
    assert required_labels(0.1, 194, 0.9) is None
    assert required_labels(0.1, 200, 0.9) == 194
