"""The labels that reports show are those closest to one half."""

from __future__ import annotations

from rlaif_framework.metrics.label_examples import find_uncertain
from rlaif_framework.records.ballots import Ballot
from rlaif_framework.records.preferences import Comparison, Evidence, Labelled, Preference, Prompt


def make_label(name: str, first: float | None, *ballots: Ballot, swapped: bool = False) -> Labelled:
    probabilities = None if first is None else (first, 1 - first)
    comparison = Comparison(name, Prompt(name, f"prompt {name}", "source"), ("x", "y"), preference=1.0)
    return comparison, Preference(name, probabilities, Evidence("llm", orders=ballots, swapped=swapped))


def test_they_are_the_soft_ones_closest_to_one_half() -> None:
    given = {"sure": 0.99, "close": 0.48, "hard": 1.0, "unread": None, "closest": 0.51, "other": 0.7}
    found = find_uncertain((make_label(name, first) for name, first in given.items()), 3)
    assert [example.id for example in found] == ["closest", "close", "other"]
    assert (found[0].prompt, found[0].responses, found[0].human) == ("prompt closest", ("x", "y"), 1.0)


def test_rationales_are_those_of_their_order() -> None:
    silent, written = Ballot((0.4, 0.6)), Ballot((0.4, 0.6), rationale="a", rationales=("a", "b"))
    for ballots, swapped, expected in (
        ([written, silent], False, [["a", "b"], []]),
        ([silent, written], False, [[], ["a", "b"]]),
        ([written], True, [[], ["a", "b"]]),
        ([silent, silent], False, []),
    ):
        (example,) = find_uncertain([make_label("p", 0.6, *ballots, swapped=swapped)], 1)
        assert example.rationales == expected
