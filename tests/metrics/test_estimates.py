"""Rates and means against scipy's own intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from rlaif_framework import Comparison, Evidence, Preference, Prompt
from rlaif_framework.metrics.agreement import measure_labeler, measure_margins
from rlaif_framework.metrics.estimates import (
    Estimate,
    clustered_p_value,
    estimate_clustered_rate,
    estimate_fraction,
    estimate_mean,
    estimate_mean_rate,
    estimate_rate,
    estimate_rate_at,
    estimate_rate_difference,
    fit_rate_at,
)
from rlaif_framework.metrics.response_metrics import average_metrics, measure_differences
from rlaif_framework.metrics.wins import WinRate, measure_wins


@pytest.mark.parametrize(
    ("wins", "count"),
    [(0, 1), (1, 1), (0, 24), (24, 24), (40, 40), (1, 2), (7, 10), (50, 100), (72, 160), (9_999, 10_000)],
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


def draw_clustered(random: np.random.Generator, rate: float, correlation: float, prompts: int) -> Any:
    """Draw wins for six comparisons of each prompt: (prompts, 6), beta-binomial with the given correlation."""
    concentration = math.inf if correlation == 0 else (1 - correlation) / correlation
    own = random.beta(rate * concentration, (1 - rate) * concentration, prompts) if correlation else rate
    return (random.random((prompts, 6)) < np.broadcast_to(np.asarray(own), (prompts,))[:, None]).astype(float)


def covers(found: Estimate | None, true: float) -> bool:
    assert found is not None
    return found.low <= true <= found.high


@pytest.mark.parametrize("correlation", [0.0, 0.05, 0.2])
def test_the_interval_over_several_comparisons_of_each_prompt_covers_95_times_in_100(correlation: float) -> None:
    random, prompts = np.random.default_rng(1), 60
    clusters = np.repeat(np.arange(prompts), 6).tolist()
    rates, means, naive = [], [], []
    for _ in range(2000):
        wins = draw_clustered(random, 0.65, correlation, prompts).ravel().tolist()
        rates.append(covers(estimate_clustered_rate(wins, clusters), 0.65))
        means.append(covers(estimate_mean(wins, clusters), 0.65))
        naive.append(covers(estimate_rate(sum(wins), len(wins)), 0.65))
    assert 0.94 <= np.mean(rates) <= 0.96
    assert 0.94 <= np.mean(means) <= 0.96
    assert correlation < 0.1 or np.mean(naive) < 0.86, "the simulation has no correlation"


def test_the_adjusted_rate_over_several_comparisons_of_each_prompt_covers_95_times_in_100() -> None:
    random, prompts, covered = np.random.default_rng(0), 60, []
    clusters = np.repeat(np.arange(prompts), 6).tolist()
    for _ in range(500):
        ratios = np.exp(random.normal(0.0, 0.3, prompts * 6))
        # The rate at a ratio of 1 is 0.65 on average over prompts; without an effect of length, this is exact.
        wins = draw_clustered(random, 0.65, 0.2, prompts).ravel()
        covered.append(covers(estimate_rate_at(wins.tolist(), ratios.tolist(), 1.0, clusters), 0.65))
    assert 0.92 < np.mean(covered) < 0.98


def test_one_observation_of_each_prompt_is_as_before() -> None:
    wins, prompts = [1.0, 0.0, 0.5, 1.0, 1.0], ["a", "b", "c", "d", "e"]
    assert estimate_clustered_rate(wins, prompts) == estimate_rate(3.5, 5)
    assert estimate_mean(wins, prompts) == estimate_mean(wins)
    ratios = [0.5, 1.5, 2.0, 3.0, 0.8]
    assert estimate_rate_at(wins, ratios, 1.0, prompts) == estimate_rate_at(wins, ratios, 1.0)


def test_copies_of_an_observation_add_no_certainty() -> None:
    wins, prompts = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0], list(range(10))
    once, copied = estimate_mean(wins, prompts), estimate_mean(wins * 6, prompts * 6)
    assert once is not None
    assert copied is not None
    assert (copied.low, copied.high) == pytest.approx((once.low, once.high))
    assert (once.clusters, copied.clusters, copied.count) == (None, 10, 60)
    rate, many = estimate_clustered_rate(wins, prompts), estimate_clustered_rate(wins * 6, prompts * 6)
    assert rate is not None
    assert many is not None
    assert many.high - many.low > 0.95 * (rate.high - rate.low)
    assert clustered_p_value(wins * 6, prompts * 6) == pytest.approx(stats.ttest_1samp(wins, 0).pvalue)


def test_copies_of_wins_without_a_loss_add_no_certainty() -> None:
    once, copied = (estimate_clustered_rate([1.0] * count, [i % 10 for i in range(count)]) for count in (10, 60))
    assert once is not None
    assert copied is not None
    assert copied.low <= once.low
    assert (copied.value, copied.high, copied.count, copied.clusters) == (1.0, 1.0, 60, 10)
    # All responses to a prompt win or lose together, as often as not without a single loss.
    random, clusters = np.random.default_rng(0), np.repeat(np.arange(10), 6).tolist()
    draws = (np.repeat(random.random(10) < 0.9, 6).astype(float).tolist() for _ in range(500))
    assert np.mean([covers(estimate_clustered_rate(wins, clusters), 0.9) for wins in draws]) > 0.94


def test_a_single_prompt_says_nothing_about_others() -> None:
    assert estimate_clustered_rate([1.0, 1.0, 0.0], ["a"] * 3) == Estimate(2 / 3, 0.0, 1.0, 3, 1)
    assert estimate_rate_at([1.0, 0.0, 1.0, 0.0], [0.5, 0.9, 1.2, 2.0], 1.0, ["a"] * 4) is None
    assert clustered_p_value([1.0, 1.0], ["a", "a"]) == 1.0


def test_prompts_without_a_difference_between_them_have_the_p_value_of_a_sign_test() -> None:
    assert clustered_p_value([1.0] * 4, ["a", "a", "b", "b"]) == 0.5
    assert clustered_p_value([0.1] * 24, [i // 2 for i in range(24)]) == pytest.approx(2**-11)
    assert clustered_p_value([-1.0] * 3, "abc") == stats.binomtest(0, 3).pvalue
    assert clustered_p_value([0.0] * 4, "aabb") == 1.0


def test_prompts_with_the_same_rate_by_chance_give_no_certainty() -> None:
    found = estimate_clustered_rate([1.0, 0.0] * 4, [0, 0, 1, 1, 2, 2, 3, 3])
    assert found is not None
    assert found.low < 0.2
    assert found.high > 0.8


def test_a_fraction_has_an_interval_between_0_and_1() -> None:
    few = estimate_fraction([0.0, 0.0, 0.0, 0.01, 0.0, 0.05], list(range(6)))
    assert few is not None
    assert 0 <= few.low < few.value < few.high < 0.2
    naive = estimate_mean([0.0, 0.0, 0.0, 0.01, 0.0, 0.05])
    assert naive is not None
    assert naive.low < 0, "the example needs no bound"
    shares = [1.0] * 39 + [0.0]
    assert estimate_fraction(shares, list(range(40))) == estimate_rate(39, 40)
    random = np.random.default_rng(0)
    values = random.beta(20, 60, 200).tolist()  # far from both ends, it is the interval of a mean
    inner, mean = estimate_fraction(values, list(range(200))), estimate_mean(values)
    assert inner is not None
    assert mean is not None
    assert (inner.low, inner.high) == pytest.approx((mean.low, mean.high), abs=1e-3)
    assert estimate_fraction([], []) is None


def test_agreement_and_accuracy_count_prompts_and_not_comparisons() -> None:
    prompts = [Prompt(str(i), f"post {i}", "?") for i in range(20)]
    responses = [("a" * k, "b") for k in range(6)]
    comparisons = [
        Comparison(f"{p.id}-{a}", p, (a, b), float(len(a) > 2), "human") for p in prompts for a, b in responses
    ]
    golds = [c.preference or 0.0 for c in comparisons]
    # All labels of the first 12 prompts are right, and all others are wrong.
    firsts = [0.1 + 0.8 * (gold if i < 12 * 6 else 1 - gold) for i, gold in enumerate(golds)]
    labels = [Preference(c.id, (f, 1 - f), Evidence("x")) for c, f in zip(comparisons, firsts, strict=True)]
    quality = measure_labeler(comparisons, labels)
    margins = measure_margins(comparisons, [f - 0.5 for f in firsts], lambda i: comparisons[i].preference)
    independent = estimate_rate(12, 20)
    assert independent is not None
    for found in (quality.agreement, margins):
        assert found is not None
        assert (found.value, found.count, found.clusters) == (0.6, 120, 20)
        assert found.high - found.low > independent.high - independent.low
    assert quality.longer_wins is not None
    assert quality.longer_wins.clusters == 20


def test_no_readable_verdict_is_no_win_rate() -> None:
    prompts = [Prompt(str(i), f"post {i}", "?") for i in range(4)]
    texts = [("a", "b"), ("same", "same"), ("c", "d"), ("", "")]
    comparisons = [Comparison(p.id, p, pair) for p, pair in zip(prompts, texts, strict=True)]
    # As the stage writes them: pairs of identical responses are ties, and are not judged.
    labels = [
        Preference(p.id, (0.5, 0.5) if a == b else None, Evidence("x"))
        for p, (a, b) in zip(prompts, texts, strict=True)
    ]
    found = measure_wins("new", "old", "judge", comparisons, labels)
    assert (found.rate, found.length_adjusted, found.ties, found.unread, found.empty) == (None, None, 0, 2, 1)
    labels[0] = Preference("0", (0.9, 0.1), Evidence("x"))
    found = measure_wins("new", "old", "judge", comparisons, labels)
    assert found.rate is not None
    assert (found.rate.value, found.rate.count, found.ties, found.unread) == (0.75, 2, 1, 1)


def test_two_policies_without_any_text_have_no_win_rate() -> None:
    found = judge([(0, 0)] * 5, [0.5] * 5)
    assert (found.rate, found.ties, found.empty, found.lengths_overlap) == (None, 0, 5, False)
    assert judge([(0, 4)] * 5, [0.0] * 5).rate == estimate_rate(0, 5)


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_lengths_that_do_not_overlap_are_not_extrapolated(factor: float) -> None:
    random = np.random.default_rng(0)
    lengths = [(int(factor * n), int(n * random.uniform(0.8, 1.2))) for n in random.integers(60, 120, 40)]
    found = judge(lengths, (random.random(40) < 0.7).astype(float).tolist())
    assert found.rate is not None
    assert (found.length_adjusted, found.lengths_overlap) == (None, False)


def test_means_of_shares_stay_between_0_and_1_and_other_means_do_not() -> None:
    prompts = [Prompt(str(i), f"post {i}", "?") for i in range(40)]
    rows = [{"eos_rate": float(i > 0), "copy_rate": 0.05 * (i == 3), "tokens": float(i % 7)} for i in range(40)]
    found = average_metrics({"sft": rows}, prompts)["sft"]
    assert found["eos_rate"] == estimate_rate(39, 40)
    assert found["tokens"] == estimate_mean([row["tokens"] for row in rows])
    assert found["copy_rate"] is not None
    assert 0 <= found["copy_rate"].low < found["copy_rate"].value < found["copy_rate"].high < 0.1
    difference = measure_differences(rows, [{**row, "tokens": row["tokens"] - 1} for row in rows], prompts)
    assert difference["tokens"] == Estimate(1.0, 1.0, 1.0, 40)


def test_a_metric_is_averaged_over_the_responses_that_it_applies_to() -> None:
    prompts = [Prompt(str(i), f"post {i}", "?") for i in range(4)]
    rows = [{"words": 1.0}, {"words": 2.0, "rouge1": 0.5}, {"words": 3.0, "rouge1": 0.7}, {"words": 4.0}]
    found = average_metrics({"sft": rows}, prompts)["sft"]
    assert (found["words"], found["rouge1"]) == (estimate_mean([1, 2, 3, 4]), estimate_fraction([0.5, 0.7], ["a", "b"]))
    difference = measure_differences(rows, [{"words": 1.0, "rouge1": 0.1}] * 2 + [{"words": 1.0}] * 2, prompts)
    assert difference["rouge1"] == Estimate(0.4, 0.4, 0.4, 1)
    assert difference["words"].count == 4


def test_a_rate_that_is_1_but_for_rounding_has_an_interval() -> None:
    wins = [1.0] * 20 + [0.0, 1.0, 0.0, 0.0]
    ratios = [1.04, 1.39, 0.86, 1.21, 0.76, 0.82, 1.34, 0.85, 1.23, 1.12, 1.29, 0.96, 0.94, 0.9, 1.31, 1.12, 1.37, 1.32]
    ratios += [0.79, 1.09, 1.99, 2.0, 2.06, 2.02]
    found = estimate_rate_at(wins, ratios, 1.0)
    assert found is not None
    assert found.value == pytest.approx(1.0)
    assert 0 <= found.low < 0.5
    assert found.high == pytest.approx(1.0)
    fitted = fit_rate_at(wins, ratios, 1.0)
    assert fitted is not None
    many = estimate_mean_rate([fitted, fitted], [*range(24), *range(24)])
    assert many is None or many.low <= many.value <= many.high
    difference = estimate_rate_difference([fitted], [fitted], [*range(24), *range(24)])
    assert difference is not None
    assert difference.value == 0


def test_equal_rates_of_all_prompts_have_the_p_value_of_a_sign_test_whatever_the_rounding() -> None:
    assert clustered_p_value([1.0, 0.0, 0.0] * 3, "aaabbbccc") == 0.25
    assert clustered_p_value([1.0, 0.0, 0.0, 0.0, 0.0] * 4, "aaaaabbbbbcccccddddd") == 0.125
