"""Two arms are compared on the responses to the prompts that they share, with the exact tests of the literature."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import comb
from statistics import fmean
from typing import Any

import pytest
from scipy import stats

from rlaif_framework import DataError
from rlaif_framework.report.run_comparison import FinishedArm, Judged, PairedWins, compare_arms, find_differences

Scores = Mapping[str, float | None]


def arm(run: str, scores: Scores, judge: str = "length", texts: Mapping[str, str] | None = None) -> FinishedArm:
    """An arm whose responses have these scores, by id; the text of a prompt is its id, unless it has another one."""
    judged = {
        key: Judged((texts or {}).get(key, key), f"{run} on {key}", "baseline", score, {"words": 10 * (score or 0.0)})
        for key, score in scores.items()
    }
    return FinishedArm(run, "rlaif", {"kind": judge}, judge, judged, {"win rate": 0.5}, {"seed": 1}, {"lr": run})


def compare_pair(first: FinishedArm, second: FinishedArm) -> PairedWins:
    return compare_arms([[first, second]], "sft").arms[0].pairs[0]


def mcnemar(first_only: int, second_only: int) -> float:
    """The exact test of McNemar (1947): twice the smaller binomial tail, at most 1."""
    total, least = first_only + second_only, min(first_only, second_only)
    return min(1.0, 2 * sum(comb(total, k) for k in range(least + 1)) / 2**total)


def draw(seed: int, outcomes: Sequence[float], count: int = 40) -> tuple[dict[str, float], dict[str, float]]:
    source = random.Random(seed)
    first = {f"p{i}": source.choice(outcomes) for i in range(count)}
    return first, {key: source.choice([score, 1.0, source.choice(outcomes)]) for key, score in first.items()}


@pytest.mark.parametrize("seed", range(20))
def test_without_ties_the_p_value_is_that_of_the_exact_mcnemar_test(seed: int) -> None:
    first, second = draw(seed, (0.0, 1.0))
    found = compare_pair(arm("a", first), arm("b", second))
    table = [sum(first[key] == x and second[key] == y for key in first) for x, y in ((1, 0), (0, 1))]
    assert (found.first_better, found.second_better) == tuple(table)
    assert found.p == pytest.approx(mcnemar(*table), rel=1e-12)
    assert found.test == "exact McNemar test"


@pytest.mark.parametrize("seed", range(20))
def test_with_ties_it_is_that_of_the_sign_test_and_the_interval_that_of_the_t_test(seed: int) -> None:
    first, second = draw(seed, (0.0, 0.5, 1.0))
    found = compare_pair(arm("a", first), arm("b", second))
    changes = [second[key] - first[key] for key in first]
    up, down = sum(c > 0 for c in changes), sum(c < 0 for c in changes)
    assert found.p == pytest.approx(mcnemar(up, down), rel=1e-12)
    assert found.test == "exact sign test"
    interval = stats.ttest_1samp(changes, 0).confidence_interval(0.95)
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == pytest.approx((interval.low, interval.high), rel=1e-9)
    assert found.difference == pytest.approx(fmean(second.values()) - fmean(first.values()))
    assert found.metrics["words"].value == pytest.approx(10 * found.difference)


def test_several_responses_to_a_prompt_are_no_independent_observations() -> None:
    """Each prompt answered four times alike is no more evidence than each once."""
    first, second = draw(1, (0.0, 1.0), 20)
    once = compare_pair(arm("a", first), arm("b", second))

    def repeat(run: str, scores: Scores) -> FinishedArm:
        keys = {f"{key}/response-{i}": key for key in scores for i in range(4)}
        return arm(run, {key: scores[prompt] for key, prompt in keys.items()}, texts=keys)

    four = compare_pair(repeat("a", first), repeat("b", second))
    assert (four.shared, four.prompts) == (80, 20)
    assert four.test == "cluster-robust test"
    changes = [second[key] - first[key] for key in first]
    assert four.p == pytest.approx(stats.ttest_1samp(changes, 0).pvalue, rel=1e-9)
    assert four.interval is not None
    assert once.interval is not None
    assert (four.interval.low, four.interval.high) == pytest.approx((once.interval.low, once.interval.high))


def test_what_is_not_shared_or_not_read_is_counted_and_left_out() -> None:
    first = arm("a", {"x": 1.0, "y": 0.0, "z": 1.0, "unread": None, "other text": 1.0})
    second = arm("b", {"x": 0.0, "y": 0.0, "w": 1.0, "unread": 1.0, "other text": 0.0}, texts={"other text": "new"})
    found = compare_pair(first, second)
    assert (found.shared, found.only_first, found.only_second, found.unread) == (2, 2, 2, 1)
    assert [counts.model_dump() for counts in found.counts] == [
        {"wins": 1, "losses": 1, "ties": 0},
        {"wins": 0, "losses": 2, "ties": 0},
    ]
    (flip,) = found.flips
    assert (flip.id, flip.prompt, flip.scores, flip.responses) == ("x", "x", (1.0, 0.0), ("a on x", "b on x"))


def test_flips_from_win_to_loss_are_listed_before_those_to_a_tie() -> None:
    found = compare_pair(
        arm("a", {"tie": 1.0, "same": 1.0, "lost": 1.0, "won": 0.0}),
        arm("b", {"tie": 0.5, "same": 1.0, "lost": 0.0, "won": 1.0}),
    )
    assert [flip.id for flip in found.flips] == ["lost", "won", "tie"]


def test_equal_verdicts_have_no_interval() -> None:
    found = compare_pair(arm("a", {"x": 1.0, "y": 0.0}), arm("b", {"x": 1.0, "y": 0.0}))
    assert (found.difference, found.interval, found.p, found.flips) == (0.0, None, 1.0, [])


def test_p_values_are_adjusted_for_all_comparisons() -> None:
    """Holm's method on three runs compared with the first: the smallest p-value three times, and so on."""
    base = {f"p{i}": 0.0 for i in range(12)}
    others = [arm(f"r{n}", {key: float(i < n) for i, key in enumerate(base)}) for n in (6, 8, 10)]
    pairs = compare_arms([[arm("a", base), *others]], "sft").arms[0].pairs
    p = [mcnemar(0, n) for n in (6, 8, 10)]
    assert [pair.p for pair in pairs] == pytest.approx(p)
    assert [pair.p_holm for pair in pairs] == pytest.approx([p[0], 2 * p[1], 3 * p[2]])


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (arm("b", {"x": 1.0}, judge="llm"), r"a:rlaif and b:rlaif have different judges \(length, llm\)"),
        (arm("b", {"y": 1.0}), "share no test prompt"),
        (arm("b", {"x": 1.0}, texts={"x": "another prompt"}), "share no test prompt"),
        (arm("b", {"x": None}), "no shared response has a readable verdict"),
    ],
)
def test_runs_that_cannot_be_compared_are_one_clear_error(second: FinishedArm, message: str) -> None:
    with pytest.raises(DataError, match=message):
        compare_pair(arm("a", {"x": 1.0}), second)


def test_settings_of_arms_with_different_names_are_compared_by_what_follows_the_name() -> None:
    first, second = arm("a", {"x": 1.0, "y": 0.0}), arm("b", {"x": 0.0, "y": 0.0})
    (row,) = compare_arms([[first, second]], "sft").arms[0].settings
    assert (row.path, row.values) == ("arms.rlaif.lr", ["a", "b"])
    (row,) = compare_arms([[first, replace(second, arm="other")]], "sft").arms[0].settings
    assert (row.path, row.values) == ("arms.*.lr", ["a", "b"])


def test_settings_that_differ_are_listed_by_their_paths() -> None:
    one: dict[str, Any] = {"seed": 1, "arms": {"a": {"lr": 0.1, "labelers": [{"kind": "x"}]}}, "sft": None}
    two: dict[str, Any] = {"seed": 1, "arms": {"a": {"lr": 0.2, "labelers": [{"kind": "y"}]}}, "sft": {"lr": 1.0}}
    rows = {row.path: row.values for row in find_differences([one, two])}
    assert rows == {
        "arms.a.lr": [0.1, 0.2],
        "arms.a.labelers.0.kind": ["x", "y"],
        "sft.lr": [None, 1.0],
    }
