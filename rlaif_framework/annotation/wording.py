"""Describe the measurements of answers in sentences, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Iterator

from rlaif_framework.annotation.summary import AnnotationSummary, DrawSummary, MatchupSummary
from rlaif_framework.metrics.estimates import Estimate
from rlaif_framework.report.page import rate


def describe_summary(summary: AnnotationSummary) -> list[str]:
    """Return the measurements as lines."""
    return [
        *_describe_counts(summary),
        *(line for kind, x in summary.draws.items() for line in _describe_draw(kind, x)),
    ]


def _describe_counts(summary: AnnotationSummary) -> Iterator[str]:
    yield f"{summary.labelled} of {count_of(summary.items, 'pair')} labelled; {count_of(summary.answers, 'answer')}"
    if summary.other_answers:
        yield f"{count_of(summary.other_answers, 'answer')} about pairs that {summary.pairs} does not have, kept"
    for x in summary.annotators:
        parts = [count_of(x.answers, "pair")]
        parts += [f"{x.median_seconds:.1f} s per answer"] if x.median_seconds is not None else []
        parts += [count_of(x.ties, "tie")] if x.ties else []
        parts += [f"{n} {name}" for n, name in ((x.both_bad, "both bad"), (x.cannot_judge, "cannot judge")) if n]
        measured = (("the first shown preferred in", x.shown_first), ("gold items right in", x.gold))
        parts += [f"{name} {rate(value)}" for name, value in measured if value is not None]
        yield f"{x.name}: {', '.join(parts)}"
    if summary.consistent is not None:
        yield f"same preference in the other order: {rate(summary.consistent)}"


def _describe_draw(kind: str, draw: DrawSummary) -> Iterator[str]:
    where = "" if kind == "random" else "pairs a labeler was least sure of, which do not stand for all: "
    for matchup in draw.matchups:
        yield f"{where}{matchup.first} wins against {matchup.second}: {rate(matchup.rate)}{_describe_stop(matchup)}"
    if draw.alpha is not None:
        yield f"{where}agreement of people: Krippendorff's alpha {coefficient(draw.alpha)}"
    if draw.kendall_w is not None:
        yield f"{where}agreement of people: Kendall's W {coefficient(draw.kendall_w)}"
    for pair in draw.kappas:
        yield f"{where}{pair.first} and {pair.second}: Cohen's kappa {coefficient(pair.kappa)}"
    for labeler in draw.labelers:
        kappa = f", Cohen's kappa {coefficient(labeler.kappa)}" if labeler.kappa else ""
        yield f"{where}agreement of {labeler.name} with people: {rate(labeler.agreement)}{kappa}"


def _describe_stop(matchup: MatchupSummary) -> str:
    found = matchup.sequence
    if found is None:
        return ""
    interval = f"[{100 * found.low:.1f}, {100 * found.high:.1f}] after {count_of(found.count, 'prompt')}"
    if found.decided is None:
        return f"; not decided: the interval for stopping is {interval}"
    winner = matchup.first if found.decided == "first" else matchup.second
    return f"; decided for {winner}: the interval for stopping is {interval}, so you may stop"


def count_of(number: int, noun: str) -> str:
    """Format a number of things: `1 pair`, `2 pairs`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def coefficient(estimate: Estimate) -> str:
    """Format a coefficient of agreement: `0.62 [0.48, 0.74], n=80`."""
    return f"{estimate.value:.2f} [{estimate.low:.2f}, {estimate.high:.2f}], n={estimate.count}"
