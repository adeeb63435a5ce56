"""Measure the answers: who has answered how much, how well people agree, and which side wins.

Items that were drawn at random and those that a labeler was least sure of are kept apart: only the former stand for all
pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean, median
from typing import get_args

from rlaif_framework.annotation.agreement import (
    estimate_alpha,
    estimate_w,
    interval_difference,
    nominal_difference,
)
from rlaif_framework.annotation.answers import Answer, Drawn
from rlaif_framework.annotation.item import Item
from rlaif_framework.annotation.items import ItemSet
from rlaif_framework.annotation.stopping import WinRateSequence, follow_win_rate
from rlaif_framework.metrics.agreement import estimate_by_prompt, score_choice
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.metrics.judge_bias import estimate_kappa


@dataclass(frozen=True, slots=True)
class AnnotatorSummary:
    """What one person has answered."""

    name: str
    answers: int
    """Number of answers, without repetitions and gold items."""
    ties: int
    both_bad: int
    cannot_judge: int
    median_seconds: float | None
    """Median time per answer."""
    shown_first: Estimate | None
    """Share of decided answers that prefer the response that was shown first: position bias if it is not one half."""
    consistent: Estimate | None
    """Share of repeated items with the same preference in the other order."""
    gold: Estimate | None
    """Share of gold items with the known answer; a tie counts half."""


@dataclass(frozen=True, slots=True)
class KappaSummary:
    """Agreement of two people beyond chance."""

    first: str
    second: str
    kappa: Estimate
    """Cohen's kappa over the items that both have answered; ties are a category."""


@dataclass(frozen=True, slots=True)
class LabelerSummary:
    """Agreement of a labeler with people."""

    name: str
    agreement: Estimate
    """Share of items on which people prefer a response where the labeler prefers it too; its exact ties count half."""
    kappa: Estimate | None
    """Cohen's kappa, where ties are a category."""


@dataclass(frozen=True, slots=True)
class MatchupSummary:
    """The win rate of one side by people."""

    first: str
    second: str
    rate: Estimate
    """Share of items that the first side wins; ties and pairs of two bad responses count half."""
    sequence: WinRateSequence | None
    """The interval that decides when to stop, over the first answer about each prompt. None for items that were not
    drawn at random."""


@dataclass(frozen=True, slots=True)
class DrawSummary:
    """The measurements over the items that were drawn in one way."""

    items: int
    """Number of items with a label."""
    alpha: Estimate | None
    """Krippendorff's alpha over items that several people have answered: nominal or, if the strength of preferences was
    asked for, of interval scale."""
    kendall_w: Estimate | None
    """Mean of Kendall's W over these items."""
    kappas: list[KappaSummary]
    labelers: list[LabelerSummary]
    matchups: list[MatchupSummary]


@dataclass(frozen=True, slots=True)
class AnnotationSummary:
    """The measurements of a file of answers."""

    pairs: str
    """The file of pairs, or the run."""
    items: int
    """Number of items that are to be compared."""
    labelled: int
    """Number of items with a label."""
    answers: int
    """Number of answers that were not taken back, with repetitions and gold items."""
    other_answers: int
    """Number of answers about items that are not in the pairs. They are kept, and left out of all other numbers."""
    annotators: list[AnnotatorSummary]
    consistent: Estimate | None
    """As in `AnnotatorSummary`, over all people."""
    draws: dict[Drawn, DrawSummary]
    """Without draws that have no label."""


def collect_labels(answers: Iterable[Answer]) -> dict[str, dict[str, float]]:
    """Return the preference of each person for the first response of each item, in the order of the answers.

    Repetitions, gold items and answers without a preference are left out.
    """
    found: dict[str, dict[str, float]] = {}
    for answer in answers:
        if answer.assignment.kind == "item" and answer.preference is not None:
            found.setdefault(answer.assignment.item, {})[answer.assignment.annotator] = answer.preference
    return found


def summarise_answers(
    answers: Sequence[Answer], pairs: ItemSet, gold: Mapping[str, Item] | None = None, planned: int | None = None
) -> AnnotationSummary:
    """Measure answers.

    Args:
        answers: The answers in the order in which they were given.
        pairs: The items.
        gold: The gold items by key.
        planned: Number of items that are to be compared; by default all.
    """
    known = {**pairs.items, **(gold or {})}
    own = [x for x in answers if x.assignment.item in known]
    labels = collect_labels(x for x in own if x.assignment.item in pairs.items)
    drawn: dict[str, Drawn] = {}
    for x in own:
        if x.assignment.kind == "item":
            drawn.setdefault(x.assignment.item, x.assignment.drawn)
    draws: dict[Drawn, DrawSummary] = {}
    for draw in get_args(Drawn):
        chosen = {key: votes for key, votes in labels.items() if drawn[key] == draw}
        if chosen:
            draws[draw] = _summarise_draw(chosen, pairs, draw, any(x.strength for x in own))
    names = list(dict.fromkeys(x.assignment.annotator for x in own))
    return AnnotationSummary(
        pairs=pairs.name,
        items=len(pairs.items) if planned is None else planned,
        labelled=len(labels),
        answers=len(own),
        other_answers=len(answers) - len(own),
        annotators=[_summarise_annotator(name, own, known, gold or {}) for name in names],
        consistent=_measure_consistency(own, known),
        draws=draws,
    )


def _summarise_annotator(
    name: str, answers: Iterable[Answer], known: Mapping[str, Item], gold: Mapping[str, Item]
) -> AnnotatorSummary:
    own = [x for x in answers if x.assignment.annotator == name]
    new = [x for x in own if x.assignment.kind == "item"]
    decided = [x for x in own if x.choice in ("first", "second")]
    return AnnotatorSummary(
        name=name,
        answers=len(new),
        ties=sum(x.choice == "tie" for x in new),
        both_bad=sum(x.choice == "bad" for x in new),
        cannot_judge=sum(x.choice == "skip" for x in new),
        median_seconds=median(x.seconds for x in own) if own else None,
        shown_first=_estimate((x, float(x.choice == "first"), known) for x in decided),
        consistent=_measure_consistency(own, known),
        gold=_estimate(
            (x, score_choice(x.preference, (gold[x.assignment.item].comparison.preference or 0.0) > 0.5), known)
            for x in own
            if x.assignment.kind == "gold" and x.assignment.item in gold and x.preference is not None
        ),
    )


def _estimate(values: Iterable[tuple[Answer, float, Mapping[str, Item]]]) -> Estimate | None:
    return estimate_by_prompt((_find_prompt(known[x.assignment.item]), value) for x, value, known in values)


def _measure_consistency(answers: Iterable[Answer], known: Mapping[str, Item]) -> Estimate | None:
    both: dict[tuple[str, str], dict[str, float]] = {}
    for x in answers:
        if x.assignment.kind != "gold" and x.preference is not None:
            both.setdefault((x.assignment.annotator, x.assignment.item), {})[x.assignment.kind] = x.preference
    return estimate_by_prompt(
        (_find_prompt(known[key]), float(_side(found["item"]) == _side(found["repeat"])))
        for (_, key), found in both.items()
        if len(found) == 2
    )


def _summarise_draw(
    labels: Mapping[str, Mapping[str, float]], pairs: ItemSet, drawn: Drawn, strengths: bool
) -> DrawSummary:
    prompts = {key: _find_prompt(pairs.items[key]) for key in labels}
    units, clusters = [list(votes.values()) for votes in labels.values()], list(prompts.values())
    names = sorted({name for votes in labels.values() for name in votes})
    return DrawSummary(
        items=len(labels),
        alpha=estimate_alpha(units, clusters, interval_difference if strengths else nominal_difference),
        kendall_w=estimate_w(units, clusters),
        kappas=[found for pair in combinations(names, 2) if (found := _measure_kappa(*pair, labels, prompts))],
        labelers=[
            compared
            for name, opinions in pairs.opinions.items()
            if (compared := _compare_labeler(name, opinions, labels, prompts))
        ],
        matchups=_measure_matchups(labels, pairs, drawn),
    )


def _measure_kappa(
    first: str, second: str, labels: Mapping[str, Mapping[str, float]], prompts: Mapping[str, str]
) -> KappaSummary | None:
    both = [key for key, votes in labels.items() if first in votes and second in votes]
    rows = [(_side(labels[key][first]), _side(labels[key][second])) for key in both]
    kappa = estimate_kappa(rows, [prompts[key] for key in both])
    return None if kappa is None else KappaSummary(first, second, kappa)


def _compare_labeler(
    name: str, opinions: Mapping[str, float], labels: Mapping[str, Mapping[str, float]], prompts: Mapping[str, str]
) -> LabelerSummary | None:
    means = {key: fmean(votes.values()) for key, votes in labels.items() if key in opinions}
    agreement = estimate_by_prompt(
        (prompts[key], score_choice(opinions[key], mean > 0.5)) for key, mean in means.items() if mean != 0.5
    )
    if agreement is None:
        return None
    rows = [(_side(opinions[key]), _side(mean)) for key, mean in means.items()]
    return LabelerSummary(name, agreement, estimate_kappa(rows, [prompts[key] for key in means]))


def _measure_matchups(labels: Mapping[str, Mapping[str, float]], pairs: ItemSet, drawn: Drawn) -> list[MatchupSummary]:
    """Measure the win rate of each two sides; the one that comes first in the alphabet is the first."""
    found: dict[tuple[str, str], list[str]] = {}
    for key in labels:
        first, second = sorted(pairs.items[key].sides)
        if first != second:
            found.setdefault((first, second), []).append(key)
    summaries = []
    for (first, second), keys in found.items():

        def orient(key: str, value: float, first: str = first) -> float:
            return value if pairs.items[key].sides[0] == first else 1 - value

        rows = [(_find_prompt(pairs.items[key]), orient(key, fmean(labels[key].values()))) for key in keys]
        rate = estimate_by_prompt(rows)
        if rate is not None:
            sequence = _follow(keys, labels, pairs, orient) if drawn == "random" else None
            summaries.append(MatchupSummary(first, second, rate, sequence))
    return sorted(summaries, key=lambda x: -x.rate.count)


def _follow(
    keys: Iterable[str],
    labels: Mapping[str, Mapping[str, float]],
    pairs: ItemSet,
    orient: Callable[[str, float], float],
) -> WinRateSequence:
    """Follow a win rate over the first answer about each prompt, because others are not independent of it."""
    outcomes: dict[str, float] = {}
    for key in keys:  # in the order of the answers, as the labels are
        outcomes.setdefault(_find_prompt(pairs.items[key]), orient(key, next(iter(labels[key].values()))))
    return follow_win_rate(list(outcomes.values()))


def _find_prompt(item: Item) -> str:
    return item.comparison.prompt.text


def _side(first: float) -> int:
    return (first > 0.5) - (first < 0.5)
