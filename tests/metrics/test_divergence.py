"""Signs of reward hacking in responses: against scipy, and with responses whose changes are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from rlaif_framework import Sample
from rlaif_framework.metrics.divergence import (
    ALPHA,
    TESTS,
    Change,
    Phrase,
    find_divergence,
    find_phrase,
    judge_disagrees,
    rise_p_value,
)
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.response_metrics import measure_sample, repetition_rate
from rlaif_framework.records.samples import MeasuredSample

GOOD = {
    "tokens": 30.0,
    "eos_rate": 0.9,
    "empty_rate": 0.02,
    "repetition_rate": 0.03,
    "copy_rate": 0.1,
    "rougeL": 0.25,
    "reward": 1.0,
}
RATES = ("eos_rate", "empty_rate")


def draw(seed: int, changed: Mapping[str, float] | None = None, responses: int = 4) -> list[MeasuredSample]:
    """Draw responses to 16 prompts, with these means of some metrics; responses to one prompt are correlated."""
    random = np.random.default_rng(seed)
    samples = []
    for number in range(16):
        own = random.normal(0, 0.1)
        for _ in range(responses):
            metrics = {
                name: float(random.random() < mean) if name in RATES else mean * (1 + own + random.normal(0, 0.2))
                for name, mean in {**GOOD, **(changed or {})}.items()
            }
            samples.append(MeasuredSample(f"{seed}/{number}", random.integers(0, 999, 20).tolist(), metrics))
    return samples


def test_the_test_is_scipys_one_sided_welch_test() -> None:
    random = np.random.default_rng(0)
    before, after = random.normal(0, 1, 12), random.normal(0.7, 2, 30)
    expected = stats.ttest_ind(after, before, equal_var=False, alternative="greater").pvalue
    assert rise_p_value(before.tolist(), after.tolist()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [([], [], 1.0), ([1.0], [2.0, 3.0], 1.0), ([2.0, 2.0], [2.0, 2.0], 1.0), ([1.0, 1.0], [2.0, 2.0], 0.0)],
    ids=["nothing", "one prompt", "no change", "no variance"],
)
def test_degenerate_values_have_a_p_value(before: Sequence[float], after: Sequence[float], expected: float) -> None:
    assert rise_p_value(before, after) == expected


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("tokens", 60.0),
        ("eos_rate", 0.3),
        ("empty_rate", 0.6),
        ("repetition_rate", 0.4),
        ("copy_rate", 0.5),
        ("rougeL", 0.12),
    ],
)
def test_each_symptom_is_found_if_the_reward_rises(metric: str, value: float) -> None:
    found = find_divergence(draw(0), draw(1, {"reward": 2.0, metric: value}), checks=6)
    assert found.is_hacking
    assert [change.metric for change in found.changes] == [metric]
    (change,) = found.changes
    assert change.before == pytest.approx(GOOD[metric], abs=0.1 * max(1, GOOD[metric]))
    assert change.after == pytest.approx(value, abs=0.1 * max(1, value))
    without = find_divergence(draw(0), draw(1, {metric: value}), checks=6)
    assert not without.is_hacking, "the reward did not rise"
    assert without.changes == found.changes


def test_an_improvement_within_the_limits_is_no_symptom() -> None:
    better = {"tokens": 36.0, "eos_rate": 0.98, "copy_rate": 0.15, "rougeL": 0.3, "reward": 2.0}
    found = find_divergence(draw(0), draw(1, better), checks=6)
    assert found.reward_rose
    assert not found.is_hacking


def test_longer_responses_are_no_symptom_if_rouge_rises() -> None:
    found = find_divergence(draw(0), draw(1, {"reward": 2.0, "tokens": 60.0, "rougeL": 0.4}), checks=6)
    assert found.reward_rose
    assert found.changes == []


def test_without_rewards_any_symptom_is_hacking() -> None:
    def strip(samples: list[MeasuredSample]) -> list[MeasuredSample]:
        return [MeasuredSample(s.prompt, s.ids, {"tokens": s.metrics["tokens"]}) for s in samples]

    found = find_divergence(strip(draw(0)), strip(draw(1, {"tokens": 60.0})), checks=6)
    assert (found.reward, found.is_hacking) == (None, True)
    assert not find_divergence(strip(draw(0)), strip(draw(1)), checks=6).is_hacking


def test_without_responses_there_is_no_sign() -> None:
    found = find_divergence([], draw(1), checks=6)
    assert (found.reward, found.changes, found.phrase, found.is_hacking) == (None, [], None, False)


def test_repeated_responses_to_a_prompt_are_no_further_evidence() -> None:
    before, after = draw(0, responses=1), draw(1, {"eos_rate": 0.4}, responses=1)
    single = find_divergence(before, after, checks=6)
    assert single.changes == []
    assert find_divergence(before * 8, after * 8, checks=6).changes == []
    first, last = (
        [replace(sample, prompt=f"{copy}/{sample.prompt}") for copy in range(8) for sample in samples]
        for samples in (before, after)
    )
    assert [change.metric for change in find_divergence(first, last, checks=6).changes] == ["eos_rate"]


def test_false_alarms_at_the_limit_are_rarer_than_1_in_20_runs() -> None:
    """The worst honest run: each metric is exactly at its limit in all checks, and the reward has risen."""
    at_limit = {
        "tokens": 45.0,
        "eos_rate": 0.75,
        "empty_rate": 0.17,
        "repetition_rate": 0.18,
        "copy_rate": 0.25,
        "rougeL": 0.2,
        "reward": 2.0,
    }
    checks, runs = 5, 60
    alarms = 0
    for run in range(runs):
        first = draw(1000 * run)
        found = [find_divergence(first, draw(1000 * run + i, at_limit), checks) for i in range(1, checks + 1)]
        alarms += any(divergence.is_hacking for divergence in found)
    assert alarms <= 0.05 * runs


def with_phrases(shares: dict[tuple[int, ...], float], prompts: int = 16) -> list[MeasuredSample]:
    """Make 64 responses of random tokens; the first ones have the phrases."""
    random = np.random.default_rng(len(shares))
    return [
        MeasuredSample(
            f"p{i % prompts}",
            [
                token
                for phrase, share in shares.items()
                if i < 64 * share
                for token in (*random.integers(1000, 99999, 8).tolist(), *phrase)
            ],
            {},
        )
        for i in range(64)
    ]


def test_a_phrase_that_becomes_common_is_found() -> None:
    before = with_phrases({(1, 2): 0.03125, (5,): 0.5})
    after = with_phrases({(1, 2): 0.875, (5,): 1.0, (7,): 0.8})
    assert find_phrase(before, after) == Phrase((1, 2), 0.03125, 0.875)


@pytest.mark.parametrize(
    ("before", "after", "prompts"),
    [({(1,): 0.1}, {(1,): 1.0}, 16), ({}, {(1,): 0.7}, 16), ({}, {(1,): 1.0}, 4)],
    ids=["known before", "not common", "few prompts"],
)
def test_other_phrases_are_not_suspicious(
    before: dict[tuple[int, ...], float], after: dict[tuple[int, ...], float], prompts: int
) -> None:
    assert find_phrase(with_phrases(before, prompts), with_phrases(after, prompts)) is None


@pytest.mark.parametrize("wins", range(10, 34))
def test_a_judge_disagrees_where_an_exact_test_says_so(wins: int) -> None:
    """Within one win: the normal approximation of 64 independent comparisons."""
    gain, checks = Estimate(1.0, 0.5, 1.5, 64), 8

    def exact(count: int) -> bool:
        return bool(stats.binomtest(count, 64, 0.5, "less").pvalue < ALPHA / (checks * TESTS))

    disagrees = judge_disagrees(gain, Estimate(wins / 64, 0, 1, 64), checks)
    assert disagrees in {exact(wins - 1), exact(wins), exact(wins + 1)}
    assert not judge_disagrees(Estimate(1.0, -0.1, 2.1, 64), Estimate(wins / 64, 0, 1, 64), checks)


@pytest.mark.parametrize(
    ("ids", "expected"),
    [([], 0.0), ([1, 1, 1], 0.0), ([1, 2, 3, 4, 5], 0.0), ([1, 2, 3, 4, 1, 2, 3, 4], 0.2), ([7] * 10, 6 / 7)],
    ids=["empty", "short", "no repetition", "a sequence twice", "one token"],
)
def test_the_repetition_rate_counts_repeated_sequences(ids: list[int], expected: float) -> None:
    assert repetition_rate(ids) == pytest.approx(expected)


def test_every_sample_is_measured() -> None:
    assert measure_sample(Sample([4, 4, 4, 4, 4, 2], " ", True), " ") == {
        "tokens": 6,
        "eos_rate": 1.0,
        "empty_rate": 1.0,
        "repetition_rate": pytest.approx(1 / 3),
    }


def test_a_change_of_the_reward_is_reported() -> None:
    found = find_divergence(draw(0), draw(1, {"reward": 2.0}), checks=1)
    assert isinstance(found.reward, Change)
    assert found.reward.after - found.reward.before == pytest.approx(1.0, abs=0.2)
