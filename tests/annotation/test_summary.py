"""The measurements of answers: who agrees with whom, and what is kept apart."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rlaif_framework.annotation.answers import Answer, Choice
from rlaif_framework.annotation.items import ItemSet
from rlaif_framework.annotation.summary import summarise_answers
from rlaif_framework.annotation.wording import describe_summary
from support.annotation import make_answer, read_small


@pytest.fixture
def pairs(tmp_path: Path) -> ItemSet:
    return read_small(tmp_path, 40)


def prefer_a(pairs: ItemSet, key: str, annotator: str = "Ann", wins: bool = True, **settings: object) -> Answer:
    """An answer that prefers the response of model A, or that of B."""
    first = pairs.items[key].sides[0] == ("A" if wins else "B")
    return make_answer(key, "first" if first else "second", annotator, **settings)  # type: ignore[arg-type]


def test_the_win_rate_is_that_of_a_model_whatever_its_position(pairs: ItemSet) -> None:
    answers = [prefer_a(pairs, key, wins=number < 30) for number, key in enumerate(pairs.items)]
    (matchup,) = summarise_answers(answers, pairs).draws["random"].matchups
    assert (matchup.first, matchup.second, matchup.rate.value, matchup.rate.count) == ("A", "B", 0.75, 40)
    assert matchup.sequence is not None
    assert matchup.sequence.count == 40
    assert matchup.sequence.decided == "first"
    assert any("decided for A" in line for line in describe_summary(summarise_answers(answers, pairs)))


def test_only_the_first_answer_about_a_prompt_counts_for_stopping(pairs: ItemSet) -> None:
    key = next(iter(pairs.items))
    answers = [prefer_a(pairs, key, name) for name in ("Ann", "Bob", "Cem")]
    (matchup,) = summarise_answers(answers, pairs).draws["random"].matchups
    assert matchup.sequence is not None
    assert (matchup.sequence.count, matchup.rate.count) == (1, 1)


def test_items_drawn_at_random_and_by_uncertainty_are_kept_apart(pairs: ItemSet) -> None:
    keys = [*pairs.items]
    answers = [prefer_a(pairs, key) for key in keys[:10]]
    answers += [prefer_a(pairs, key, wins=False, drawn="uncertain") for key in keys[10:25]]
    summary = summarise_answers(answers, pairs)
    assert {draw: (x.items, x.matchups[0].rate.value) for draw, x in summary.draws.items()} == {
        "random": (10, 1.0),
        "uncertain": (15, 0.0),
    }
    assert summary.draws["uncertain"].matchups[0].sequence is None  # no stopping by a sample that is not random
    assert any(line.startswith("pairs a labeler was least sure of") for line in describe_summary(summary))


def test_agreement_of_people_and_with_a_labeler(pairs: ItemSet) -> None:
    keys = [*pairs.items]
    answers = [prefer_a(pairs, key) for key in keys]
    answers += [prefer_a(pairs, key, "Bob", wins=number < 30) for number, key in enumerate(keys)]
    # The labeler always prefers A, as Ann does; where Bob does not, people are undecided on the whole.
    opinion = {key: 0.8 if item.sides[0] == "A" else 0.2 for key, item in pairs.items.items()}
    found = summarise_answers(answers, replace(pairs, opinions={"judge": opinion})).draws["random"]
    (kappa,), (labeler,) = found.kappas, found.labelers
    assert (kappa.first, kappa.second, kappa.kappa.count) == ("Ann", "Bob", 40)
    assert (labeler.agreement.value, labeler.agreement.count) == (1.0, 30)
    assert labeler.kappa is not None
    assert labeler.kappa.count == 40
    assert found.alpha is not None
    assert found.kendall_w is not None
    assert found.alpha.count == found.kendall_w.count == 40
    assert found.kendall_w.value == pytest.approx(0.75)


def test_repeats_measure_consistency_and_count_for_nothing_else(pairs: ItemSet) -> None:
    keys = [*pairs.items][:4]
    answers = [prefer_a(pairs, key, first=0) for key in keys]
    answers += [make_answer(key, "second", kind="repeat", first=0) for key in keys]
    summary = summarise_answers(answers, pairs)
    same = sum(pairs.items[key].sides[1] == "A" for key in keys)
    assert summary.consistent is not None
    assert (summary.consistent.value, summary.consistent.count) == (same / 4, 4)
    assert summary.draws["random"].matchups[0].rate.value == 1
    assert summary.annotators[0].answers == 4


def test_gold_items_measure_people_and_count_for_nothing_else(pairs: ItemSet) -> None:
    keys = [*pairs.items][:3]
    gold = {
        key: replace(item, comparison=replace(item.comparison, preference=1.0))
        for key, item in pairs.items.items()
        if key in keys
    }
    choices: tuple[Choice, ...] = ("first", "second", "tie")
    answers = [make_answer(key, choice, kind="gold") for key, choice in zip(keys, choices, strict=True)]
    summary = summarise_answers(answers, replace(pairs, items={}), gold)
    assert summary.annotators[0].gold is not None
    assert summary.annotators[0].gold.value == 0.5
    assert (summary.labelled, summary.draws) == (0, {})


def test_counts_of_people(pairs: ItemSet) -> None:
    keys = [*pairs.items]
    choices: tuple[Choice, ...] = ("first", "first", "tie", "bad", "skip")
    answers = [make_answer(key, choice) for key, choice in zip(keys, choices, strict=False)]
    answers.append(make_answer("not there", "first"))
    summary = summarise_answers(answers, pairs, planned=7)
    (person,) = summary.annotators
    assert (person.answers, person.ties, person.both_bad, person.cannot_judge) == (5, 1, 1, 1)
    assert person.shown_first is not None
    assert (person.shown_first.value, person.shown_first.count) == (1, 2)
    assert (summary.items, summary.labelled, summary.answers, summary.other_answers) == (7, 4, 5, 1)
    assert describe_summary(summary)[:3] == [
        "4 of 7 pairs labelled; 5 answers",
        f"1 answer about pairs that {pairs.name} does not have, kept",
        "Ann: 5 pairs, 2.0 s per answer, 1 tie, 1 both bad, 1 cannot judge, the first shown preferred in "
        "100.0 % [34.2, 100.0], n=2",
    ]


def test_without_answers_there_is_nothing_to_measure(pairs: ItemSet) -> None:
    summary = summarise_answers([], pairs)
    assert (summary.draws, summary.annotators, summary.consistent) == ({}, [], None)
    assert describe_summary(summary) == ["0 of 40 pairs labelled; 0 answers"]
