"""Agreement is that of the literature, and of scipy where it has it."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from scipy.stats import friedmanchisquare

from rlaif_framework.annotation.agreement import (
    estimate_alpha,
    estimate_w,
    interval_difference,
    kendall_w,
    nominal_difference,
)

# Krippendorff (2011), "Computing Krippendorff's Alpha-Reliability", section C: 4 observers, 12 units, 0 is missing.
OBSERVERS = ("123321412000", "123322412503", "033323422510", "123324412510")
UNITS = [[float(value) for value in unit if value != "0"] for unit in zip(*OBSERVERS, strict=True)]


def test_alpha_is_that_of_krippendorffs_example() -> None:
    nominal, interval = estimate_alpha(UNITS, range(12)), estimate_alpha(UNITS, range(12), interval_difference)
    assert nominal is not None
    assert interval is not None
    assert nominal.value == pytest.approx(0.743, abs=5e-4)
    assert interval.value == pytest.approx(0.849, abs=5e-4)
    assert nominal.count == 11  # one unit has a single value
    assert nominal.low < nominal.value < nominal.high <= 1


def test_alpha_is_that_of_the_definition_by_pairs_of_values() -> None:
    draw = random.Random(0)
    units = [[draw.choice([0.0, 0.5, 1.0]) for _ in range(draw.choice([1, 2, 3]))] for _ in range(40)]
    values = [value for unit in units if len(unit) > 1 for value in unit]
    for difference in (nominal_difference, interval_difference):
        within = [
            difference(a, b) / (len(unit) - 1)
            for unit in units
            if len(unit) > 1
            for a, b in itertools.permutations(unit, 2)
        ]
        by_chance = [difference(a, b) for a, b in itertools.permutations(values, 2)]
        expected = 1 - (sum(within) / len(values)) / (sum(by_chance) / len(by_chance))
        found = estimate_alpha(units, range(40), difference)
        assert found is not None
        assert found.value == pytest.approx(expected)


def test_alpha_is_1_for_full_agreement_and_nothing_without_two_values() -> None:
    found = estimate_alpha([[0, 0], [1, 1], [0, 0]], range(3))
    assert found is not None
    assert (found.value, found.high) == (1, 1)
    assert estimate_alpha([[0], [1]], range(2)) is None
    assert estimate_alpha([[1, 1], [1, 1]], range(2)) is None


def test_intervals_are_wider_if_the_units_are_of_few_prompts() -> None:
    draw = np.random.default_rng(1)
    truth = np.repeat(draw.integers(0, 2, 20), 5)  # five pairs of each prompt are alike
    flips = np.repeat(draw.random(20) < 0.3, 5)
    units = [[float(a), float(a ^ b)] for a, b in zip(truth, flips, strict=True)]
    alone, clustered = estimate_alpha(units, range(100)), estimate_alpha(units, [n // 5 for n in range(100)])
    assert alone is not None
    assert clustered is not None
    assert alone.value == clustered.value
    assert clustered.high - clustered.low > 1.5 * (alone.high - alone.low)
    assert clustered.clusters == 20


def test_intervals_contain_the_true_alpha_in_95_percent_of_simulations() -> None:
    draw = np.random.default_rng(7)
    inside = 0
    for seed in range(100):
        truth = draw.integers(0, 2, 80)
        units = [[float(t ^ (draw.random() < 0.15)) for _ in range(2)] for t in truth]
        found = estimate_alpha(units, range(80), seed=seed)
        assert found is not None
        inside += found.low <= 0.49 <= found.high  # agreement is 0.745, by chance 0.5
    assert inside >= 90


@pytest.mark.parametrize("ties", [False, True])
def test_kendalls_w_is_that_of_friedmans_test(ties: bool) -> None:
    draw = np.random.default_rng(2)
    ratings = draw.normal(size=(6, 5)) if not ties else draw.integers(0, 3, (6, 5)).astype(float)
    statistic = friedmanchisquare(*ratings.T).statistic
    assert kendall_w(ratings.tolist()) == pytest.approx(statistic / (6 * 4))


def test_kendalls_w_of_pairs() -> None:
    assert kendall_w([(1, 0), (1, 0), (1, 0)]) == 1
    assert kendall_w([(1, 0), (1, 0), (0, 1)]) == pytest.approx(1 / 9)
    assert kendall_w([(0.5, 0.5), (0.5, 0.5)]) is None
    units = [[1.0, 1.0, 1.0], [1.0, 1.0, 0.0], [0.5, 0.5], [1.0]]
    found = estimate_w(units, range(4))
    assert found is not None
    assert found.value == pytest.approx((1 + 1 / 9) / 2)
    assert found.count == 2
