"""Corrected win rates against the formulas of prediction-powered inference, written out here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from rlaif_framework.metrics import CorrectedWinRate, correct_win_rate
from rlaif_framework.metrics.estimates import estimate_clustered_rate, estimate_rate


def correct(
    judge: Sequence[float],
    human: Sequence[float | None],
    prompts: Sequence[int] | None = None,
    known: Sequence[float | None] | None = None,
) -> CorrectedWinRate:
    found = correct_win_rate(judge, human, range(len(judge)) if prompts is None else prompts, known)
    assert found is not None
    return found


def draw(count: int, labels: int, seed: int = 0) -> tuple[list[float], list[float | None]]:
    """A judge with a bias, who is right more often than not, and ties of both."""
    random = np.random.default_rng(seed)
    human = random.choice([0.0, 0.5, 1.0], size=count, p=[0.4, 0.1, 0.5])
    right = np.where(random.random(count) < 0.75, human, 1.0)
    judge = np.where(random.random(count) < 0.1, 0.5, right)
    return judge.tolist(), [float(y) if i < labels else None for i, y in enumerate(human)]


def test_the_rate_is_that_of_ppi_with_power_tuning() -> None:
    judge, human = draw(1000, 80)
    y = np.array(human[:80], dtype=float)
    f, unlabelled = np.array(judge[:80]), np.array(judge[80:])
    # PPI++ for a mean: n labelled and N other pairs.
    weight = np.cov(y, f)[0, 1] / ((1 + 80 / 920) * np.var(f, ddof=1))
    expected = y.mean() + weight * (unlabelled.mean() - f.mean())
    found = correct(judge, human)
    assert found.rate.value == pytest.approx(expected, abs=1e-12)
    assert found.weight / (1 + 80 / 920) == pytest.approx(weight, abs=1e-12)
    assert found.human.value == pytest.approx(y.mean(), abs=1e-12)
    assert (found.rate.count, found.human.count) == (1000, 80)


def test_in_a_large_sample_the_interval_is_that_of_ppi() -> None:
    judge, human = draw(20_000, 4000)
    y = np.array(human[:4000], dtype=float)
    f, unlabelled = np.array(judge[:4000]), np.array(judge[4000:])
    weight = np.cov(y, f)[0, 1] / ((1 + 4000 / 16_000) * np.var(f, ddof=1))
    variance = np.var(y - weight * f, ddof=1) / 4000 + weight**2 * np.var(unlabelled, ddof=1) / 16_000
    half = 1.959964 * math.sqrt(variance)
    found = correct(judge, human)
    assert found.rate.high - found.rate.low == pytest.approx(2 * half, rel=0.01)
    alone = estimate_clustered_rate([float(x) for x in y], range(4000))
    assert alone is not None
    # Wilson's interval takes a tie for a win and a loss, and is wider.
    assert found.human.high - found.human.low == pytest.approx(2 * 1.959964 * y.std() / math.sqrt(4000), rel=0.01)
    assert found.human.high - found.human.low < alone.high - alone.low


def test_of_a_judge_without_ties_the_shares_of_human_wins_among_its_wins_and_losses_are_averaged() -> None:
    # 40 labels: people agree with 15 of 20 wins and with 16 of 20 losses; of all 100 pairs, the judge has 70 win.
    judge = [1.0] * 20 + [0.0] * 20 + [1.0] * 50 + [0.0] * 10
    human: list[float | None] = [1.0] * 15 + [0.0] * 5 + [1.0] * 4 + [0.0] * 16 + [None] * 60
    found = correct(judge, human)
    assert found.rate.value == pytest.approx(0.7 * 15 / 20 + 0.3 * 4 / 20, abs=1e-12)
    assert found.weight == pytest.approx(15 / 20 - 4 / 20, abs=1e-12)
    assert found.bias.value == pytest.approx(20 / 40 - 19 / 40)
    assert found.agreement == estimate_rate(31, 40)


def test_the_interval_of_a_small_sample_is_worked_out_with_half_a_pair_of_each_combination() -> None:
    judge, human = [1.0, 1, 0, 0, 1, 0, 1, 1], [1.0, 1, 0, 1, None, None, None, None]
    # With half a pair of each combination: 2.5 of 3 wins of the judge are right, and 1.5 of 3 losses.
    win, loss = 2.5 / 3, 1.5 / 3
    predicted = np.where(judge, win, loss)
    centre = predicted.mean()
    influence = (predicted - centre) / 8
    influence[:4] += (np.array([1, 1, 0, 1]) - predicted[:4]) / 6
    added = np.array([0 - loss, 0 - win, 1 - loss, 1 - win]) / 6
    variance = (np.sum(influence**2) + np.sum(added**2) / 2) * 6 / 4
    half = stats.t.ppf(0.975, 4) * math.sqrt(variance)
    found = correct(judge, human).rate
    assert found.value == pytest.approx(5 / 8 * 1 + 3 / 8 * 0.5)
    assert (found.low, found.high) == pytest.approx((max(0, centre - half), min(1, centre + half)), abs=1e-12)
    found = correct(judge * 40, human + [None] * 312).rate  # the labels are the same, and the interval is not cut
    assert 0 < found.low < found.value < found.high


def test_the_interval_covers_the_true_rate_though_that_of_the_judge_does_not() -> None:
    random = np.random.default_rng(1)
    covered = misled = 0
    ratios = []
    for _ in range(400):
        human = (random.random(400) < 0.5).astype(float)
        judge = np.where(human == 1, random.random(400) < 0.98, random.random(400) < 0.15).astype(float)
        found = correct(judge.tolist(), [*human[:60].tolist(), *[None] * 340])
        raw = estimate_rate(float(judge.sum()), 400)
        assert raw is not None
        covered += found.rate.low <= 0.5 <= found.rate.high
        misled += raw.low > 0.5
        ratios.append((found.rate.high - found.rate.low) / (found.human.high - found.human.low))
    assert 0.93 <= covered / 400 <= 0.98
    assert np.mean(ratios) < 0.75
    assert misled > 150


def test_the_scale_of_the_judges_probabilities_does_not_matter() -> None:
    judge, human = draw(300, 60)
    found, unsure = correct(judge, human), correct([0.45 + x / 10 for x in judge], human)
    assert unsure.rate.low == pytest.approx(found.rate.low)
    assert unsure.rate.high == pytest.approx(found.rate.high)
    assert unsure.rate.value == pytest.approx(found.rate.value)
    assert unsure.weight == pytest.approx(10 * found.weight)
    assert unsure.bias == found.bias


def test_pairs_of_one_prompt_count_as_what_they_are_together() -> None:
    judge, human = draw(200, 60)
    once = correct(judge, human).rate
    four = correct(judge * 4, human * 4, list(range(200)) * 4).rate
    apart = correct(judge * 4, human * 4).rate
    assert four.value == pytest.approx(once.value)
    assert four.high - four.low == pytest.approx(once.high - once.low, rel=0.05)
    assert apart.high - apart.low == pytest.approx((once.high - once.low) / 2, rel=0.05)
    assert (four.count, four.clusters, once.clusters) == (800, 200, None)


def test_pairs_that_need_no_label_count_and_are_no_part_of_the_sample() -> None:
    # A quarter of the pairs has equal responses; of the others, people prefer the first in 8 of 10.
    judge = [1.0] * 60 + [0.5] * 20
    human: list[float | None] = [*([1.0] * 4 + [0.0]) * 2, *[None] * 70]
    known: list[float | None] = [*[None] * 60, *[0.5] * 20]
    found = correct(judge, human, known=known)
    assert found.rate.value == pytest.approx(0.75 * 0.8 + 0.25 * 0.5)
    assert found.human.count == 10
    assert found.rate.low == pytest.approx(found.human.low)  # a constant judge says nothing
    ignored = correct(judge, [*human[:60], *[1.0] * 20], known=known)  # labels of such pairs
    assert ignored == found
    # They are certain: an evaluation that consists of them has a narrow interval.
    mostly = correct([*judge[:20], *[0.5] * 180], [*human[:20], *[None] * 180], known=[*[None] * 20, *[0.5] * 180])
    assert mostly.rate.high - mostly.rate.low < 0.15


def test_without_labels_there_is_nothing_to_correct_with() -> None:
    assert correct_win_rate([1.0, 0.0], [None, None], "ab") is None
    assert correct_win_rate([], [], []) is None
    assert correct_win_rate([0.5], [0.5], "a", [0.5]) is None


@pytest.mark.parametrize("labels", [1, 3], ids=["one-label", "three-labels-of-one-prompt"])
def test_labels_of_one_prompt_say_nothing_about_others(labels: int) -> None:
    found = correct([1.0] * 20, [*[1.0] * labels, *[None] * (20 - labels)], [0] * labels + list(range(1, 21 - labels)))
    assert (found.rate.value, found.rate.low, found.rate.high) == (1.0, 0.0, 1.0)
    assert (found.bias.value, found.bias.low, found.bias.high) == (0.0, -1.0, 1.0)


def test_a_judge_that_is_always_right_is_not_taken_to_be_infallible() -> None:
    human = [1.0, 0.0, 1.0, 1.0, 0.0] * 40
    found = correct(human, [*human[:20], *[None] * 180])
    raw = estimate_rate(120, 200)
    assert raw is not None
    assert found.rate.value == pytest.approx(0.6)
    assert found.weight == pytest.approx(1.0)
    assert found.rate.high - found.rate.low > raw.high - raw.low
    assert found.rate.high - found.rate.low < found.human.high - found.human.low
    assert found.bias.low < 0 < found.bias.high


def test_a_constant_judge_leaves_the_human_labels() -> None:
    _, human = draw(200, 50)
    found = correct([0.7] * 200, human)
    assert found.weight == 0
    for end in ("value", "low", "high"):
        assert getattr(found.rate, end) == pytest.approx(getattr(found.human, end))


def test_ties_only() -> None:
    found = correct([0.5] * 60, [*[0.5] * 30, *[None] * 30])
    assert found.rate.value == 0.5
    assert 0.4 < found.rate.low < 0.5 < found.rate.high < 0.6
    assert found.agreement is None
    assert found.bias.value == 0


def test_estimates_stay_between_0_and_1() -> None:
    # The line through these labels predicts more than 1 for the mean of all pairs.
    judge = [0.2, 0.3, 0.4, 0.5, *[1.0] * 30]
    found = correct(judge, [0.0, 0.5, 0.5, 1.0, *[None] * 30])
    assert found.rate.value == 1.0
    assert 0 <= found.rate.low <= found.rate.high == 1.0


def test_values_that_are_no_preferences_are_refused() -> None:
    with pytest.raises(ValueError, match="2 probabilities of the judge, 1 human labels, 2 prompts and 2 known"):
        correct_win_rate([1.0, 0.0], [1.0], "ab")
    for wrong in (-1.0, 2.0, math.nan):
        with pytest.raises(ValueError, match=f"{wrong} is not between 0 and 1; a win is 1"):
            correct_win_rate([wrong, 0.0], [1.0, None], "ab")
