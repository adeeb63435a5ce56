"""Means over seeds, with an interval for other prompts and one for other seeds, against numpy and scipy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats
from scipy.special import logit

from rlaif_framework.metrics.estimates import estimate_rate, estimate_rate_at
from rlaif_framework.metrics.seeds import Measured, average_seeds, compare_seeds
from rlaif_framework.metrics.wins import measure_wins
from rlaif_framework.records.preferences import Comparison, Evidence, Preference, Prompt

PROMPTS = [f"prompt {i}" for i in range(40)]


def simulate(seeds: int, shift: float = 0.0, stream: int = 0) -> dict[int, Measured]:
    """Numbers with an effect of the prompt, one of the seed, and noise."""
    rng = np.random.default_rng(stream)
    prompt, seed = rng.normal(0, 1, len(PROMPTS)), rng.normal(shift, 0.3, seeds)
    found = {}
    for number in range(seeds):
        values = prompt + seed[number] + rng.normal(0, 0.5, len(PROMPTS))
        found[number] = Measured(float(values.mean()), PROMPTS, values.tolist())
    return found


def t_interval(values: np.ndarray) -> tuple[float, float]:
    low, high = stats.t.interval(0.95, len(values) - 1, values.mean(), stats.sem(values))
    return float(low), float(high)


def test_seeds_and_prompts_have_an_interval_each_and_neither_is_pooled() -> None:
    measured = simulate(5)
    mean = average_seeds(measured, is_rate=False)
    table = np.array([found.values for found in measured.values()])  # (seeds, prompts)
    assert mean.value == pytest.approx(table.mean())
    assert mean.over_prompts is not None
    assert mean.over_seeds is not None
    assert (mean.over_prompts.low, mean.over_prompts.high) == pytest.approx(t_interval(table.mean(axis=0)))
    assert (mean.over_seeds.low, mean.over_seeds.high) == pytest.approx(t_interval(table.mean(axis=1)))
    pooled = t_interval(table.ravel())
    assert mean.over_prompts.high - mean.over_prompts.low > 1.5 * (pooled[1] - pooled[0])
    assert (mean.over_prompts.count, mean.over_seeds.count, mean.missing) == (40, 5, [])


def test_differences_are_paired_by_seed_and_prompt() -> None:
    first, second = simulate(4, shift=0.5, stream=1), simulate(4, stream=2)
    shuffled = {
        seed: Measured(found.value, found.prompts[::-1], found.values[::-1]) for seed, found in reversed(second.items())
    }
    found = compare_seeds(first, shuffled)
    assert found is not None
    differences = np.array([first[seed].values for seed in range(4)]) - np.array(
        [second[seed].values for seed in range(4)]
    )
    assert found.value == pytest.approx(differences.mean())
    assert found.seeds == pytest.approx(dict(enumerate(differences.mean(axis=1))))
    assert found.over_prompts is not None
    assert found.over_seeds is not None
    assert (found.over_prompts.low, found.over_prompts.high) == pytest.approx(t_interval(differences.mean(axis=0)))
    assert (found.over_seeds.low, found.over_seeds.high) == pytest.approx(t_interval(differences.mean(axis=1)))
    assert found.p == pytest.approx(stats.ttest_1samp(differences.mean(axis=1), 0).pvalue)


def test_only_seeds_and_prompts_in_common_are_compared() -> None:
    first = {1: Measured(2.0, ["a", "b", "c"], [1.0, 2.0, 3.0]), 2: Measured(5.0, ["a", "b"], [5.0, 5.0])}
    second = {2: Measured(1.0, ["b", "a", "d"], [0.0, 1.0, 2.0]), 3: Measured(0.0, ["a"], [0.0])}
    found = compare_seeds(first, second)
    assert found is not None
    assert (found.value, found.seeds, found.p) == (4.0, {2: 4.0}, None)
    assert found.over_prompts is not None
    assert (found.over_prompts.value, found.over_prompts.count) == (4.5, 2)
    assert compare_seeds({1: first[1]}, {3: second[3]}) is None


def test_one_seed_has_the_interval_of_its_run_and_says_what_is_missing() -> None:
    wins = [1.0] * 30 + [0.0] * 10
    mean = average_seeds({3: Measured(0.75, PROMPTS, wins)}, is_rate=True)
    assert mean.over_prompts == estimate_rate(30, 40)
    assert mean.over_seeds is None
    assert mean.missing == ["no interval over seeds: it has 1 seed, and 3 or more are needed"]


@pytest.mark.parametrize(
    ("measured", "missing"),
    [
        ({0: Measured(1.0), 1: Measured(2.0), 2: Measured(4.0)}, ["over prompts: it is not measured on prompts"]),
        (
            {0: Measured(1.0, ["a", "a"], [0.5, 1.5]), 1: Measured(2.0, ["a"], [2.0])},
            ["over prompts: there is 1 prompt, and 2", "over seeds: it has 2 seeds, and 3"],
        ),
        (
            {seed: Measured(0.5 + seed * 1e-16, ["a", "b"], [0.0, 1.0]) for seed in range(3)},  # but for rounding
            ["over seeds: all have the same value"],
        ),
        (
            {seed: Measured(0.4 + seed / 10, PROMPTS, [1.0] * 40, [1.5] * 40) for seed in range(3)},
            ["over prompts: the regression on lengths cannot be fitted"],
        ),
    ],
    ids=["no-prompts", "one-prompt", "equal-seeds", "separable-lengths"],
)
def test_an_interval_that_cannot_be_computed_has_a_reason(measured: dict[int, Measured], missing: list[str]) -> None:
    found = average_seeds(measured, is_rate=False).missing
    assert len(found) == len(missing)
    assert all(text in reason for text, reason in zip(missing, found, strict=True))


def test_equal_values_of_all_seeds_are_no_larger_sample_of_prompts() -> None:
    measured = {seed: Measured(1.0, PROMPTS[:20], [1.0] * 20) for seed in range(3)}
    assert average_seeds(measured, is_rate=True).over_prompts == estimate_rate(20, 20)
    found = compare_seeds(measured, measured)
    assert found is not None
    assert (found.value, found.over_prompts, found.over_seeds) == (0.0, None, None)
    thirds = {seed: Measured(float(seed == 0), ["a", "b"], [float(seed == 0)] * 2) for seed in range(3)}
    assert average_seeds(thirds, is_rate=True).missing == ["no interval over prompts: all prompts have the same value"]


def test_an_interval_of_a_rate_has_its_bounds() -> None:
    mean = average_seeds({0: Measured(0.9), 1: Measured(1.0), 2: Measured(1.0)}, is_rate=True)
    assert mean.over_seeds is not None
    assert mean.over_seeds.high == 1.0
    assert mean.over_seeds.low == pytest.approx(t_interval(np.array([0.9, 1.0, 1.0]))[0])


def simulate_adjusted(seeds: int, stream: int) -> dict[int, Measured]:
    """Win rates that depend on length and on the prompt, each with the value of the regression of a run."""
    rng = np.random.default_rng(stream)
    easy, found = rng.normal(0, 0.15, len(PROMPTS)), {}
    for seed in range(seeds):
        sizes = rng.integers(5, 40, (len(PROMPTS), 2))
        chances = np.clip(0.3 + seed / 10 + 0.3 * (sizes[:, 0] > sizes[:, 1]) + easy, 0, 1)
        wins = (rng.random(len(PROMPTS)) < chances).astype(float).tolist()
        comparisons, preferences = [], []
        for text, (a, b), win in zip(PROMPTS, sizes.tolist(), wins, strict=True):
            comparisons.append(Comparison(text, Prompt(text, text, text), ("x" * a, "y" * b)))
            preferences.append(Preference(text, (win, 1 - win), Evidence("test")))
        rate = measure_wins("a", "b", "judge", comparisons, preferences).length_adjusted
        assert rate is not None
        found[seed] = Measured(rate.value, PROMPTS, wins, (sizes[:, 0] / sizes[:, 1]).tolist())
    return found


def refit(measured: dict[int, Measured], kept: set[str]) -> float:
    """The mean of the win rates at equal lengths, from the values of some prompts."""
    rates = []
    for found in measured.values():
        rows = [i for i, prompt in enumerate(found.prompts) if prompt in kept]
        rate = estimate_rate_at([found.values[i] for i in rows], [found.ratios[i] for i in rows], 1.0)
        assert rate is not None
        rates.append(rate.value)
    return float(np.mean(rates))


def jackknife_error(values: list[float]) -> float:
    """The standard error of a number from its values without one prompt each."""
    return math.sqrt((len(values) - 1) * np.var(values))


def test_a_length_adjusted_rate_is_the_mean_of_its_seeds_with_an_interval_for_other_prompts() -> None:
    measured, other = simulate_adjusted(3, stream=2), simulate_adjusted(3, stream=3)
    mean, found = average_seeds(measured, is_rate=True), compare_seeds(measured, other)
    assert mean.over_prompts is not None
    assert found is not None
    assert found.over_prompts is not None
    assert mean.value == pytest.approx(mean.over_prompts.value) == refit(measured, set(PROMPTS))
    assert found.value == pytest.approx(found.over_prompts.value)
    assert (mean.over_prompts.count, mean.over_prompts.clusters) == (120, 40)
    without = [set(PROMPTS) - {prompt} for prompt in PROMPTS]
    t = stats.t.ppf(0.975, len(PROMPTS) - 1)
    logits = [float(logit(refit(measured, kept))) for kept in without]
    own = logit([mean.over_prompts.low, mean.over_prompts.high])
    assert own[1] - own[0] == pytest.approx(2 * t * jackknife_error(logits), rel=0.1)
    differences = [refit(measured, kept) - refit(other, kept) for kept in without]
    width = found.over_prompts.high - found.over_prompts.low
    assert width == pytest.approx(2 * t * jackknife_error(differences), rel=0.1)


def test_one_seed_has_the_interval_of_its_run() -> None:
    measured = simulate_adjusted(1, stream=4)
    expected = estimate_rate_at(measured[0].values, measured[0].ratios, 1.0)
    assert average_seeds(measured, is_rate=True).over_prompts == expected


def test_a_variant_compared_with_itself_at_equal_lengths_has_no_interval() -> None:
    measured = simulate_adjusted(3, stream=5)
    found = compare_seeds(measured, measured)
    assert found is not None
    assert (found.value, found.over_prompts) == (0.0, None)


def test_intervals_at_equal_lengths_cover_95_times_in_100() -> None:
    rng, means, differences = np.random.default_rng(0), [], []
    for _ in range(300):
        # Values of a prompt are correlated over seeds and variants; without an effect of length, 0.6 is exact.
        easy = rng.beta(3, 2, len(PROMPTS))[:, None]
        wins, ratios = rng.random((len(PROMPTS), 4)) < easy, np.exp(rng.normal(0, 0.4, (len(PROMPTS), 4)))
        columns = [Measured(0.6, PROMPTS, wins[:, i].astype(float).tolist(), ratios[:, i].tolist()) for i in range(4)]
        mean = average_seeds(dict(enumerate(columns[:2])), is_rate=True).over_prompts
        found = compare_seeds(dict(enumerate(columns[:2])), dict(enumerate(columns[2:])))
        assert mean is not None
        assert found is not None
        assert found.over_prompts is not None
        means.append(mean.low <= 0.6 <= mean.high)
        differences.append(found.over_prompts.low <= 0 <= found.over_prompts.high)
    assert 0.92 < np.mean(means) < 0.98
    assert 0.92 < np.mean(differences) < 0.98
