"""Findings and warnings of a labeler report as text, and its tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterator

from rlaif_framework.labelling.report_model import LabelerReport, LabelReport, PairsSummary
from rlaif_framework.metrics.paired_comparison import PairedComparison
from rlaif_framework.records.ballots import LOW_MASS
from rlaif_framework.report.cautions import Caution
from rlaif_framework.report.findings import describe_unanswered
from rlaif_framework.report.page import rate

SIGNIFICANCE = 0.05
"""Differences with a smaller p-value are significant."""


def summarise(report: LabelReport) -> list[str]:
    """Describe the main findings, one line each."""
    lines = [line for name, x in report.labelers.items() for line in _summarise_labeler(name, x)]
    tested = [(pair, pair.p_holm) for pair in report.paired if pair.p_holm is not None]
    lines += [_describe_difference(pair, p) for pair, p in tested if p < SIGNIFICANCE]
    undecided = sum(p >= SIGNIFICANCE for _, p in tested)
    if undecided:
        lines.append(
            f"no significant difference between {undecided} of {len(report.paired)} pairs of labelers "
            f"(p >= {SIGNIFICANCE})"
        )
    return lines


def _summarise_labeler(name: str, x: LabelerReport) -> Iterator[str]:
    quality = x.quality
    agreement = (
        f"{name} agrees with humans in {rate(quality.agreement)}"
        if quality.agreement
        else f"{name} cannot be compared with humans: no human preferences"
    )
    if x.copied:
        agreement += f", in addition to {x.copied} labels copied from human annotations"
    if x.high_confidence:
        agreement += f"; where humans were confident, {rate(x.high_confidence)}"
    yield agreement
    if quality.same_position:
        first = quality.first_when_same
        which = f"; of those, the first in {rate(first)}" if first else ""
        yield f"{name} prefers the same position in both orders in {rate(quality.same_position)}{which}"
    if x.disagreement:
        yield f"the members of {name} prefer different responses in {rate(x.disagreement)}"


def _describe_difference(pair: PairedComparison, p: float) -> str:
    difference = pair.difference or 0.0
    better, worse = (pair.first, pair.second) if difference > 0 else (pair.second, pair.first)
    return (
        f"{better} agrees with humans more often than {worse}: by {100 * abs(difference):.1f} points, "
        f"p = {p:.2g} (Holm-adjusted)"
    )


def find_cautions(report: LabelReport) -> list[Caution]:
    """Return reasons to doubt the labels."""
    found = []
    if not report.pairs.with_human:
        text = "no comparison has a human preference: the quality of these labels is unknown"
        found.append(Caution("not measured", "", text))
    if report.pairs.skipped:
        found.append(Caution("run", "", f"{report.pairs.skipped} invalid rows were skipped"))
    for name, x in report.labelers.items():
        doubts = (*_doubt_quality(x, report.pairs), *_doubt_answers(x))
        found += [Caution(kind, name, f"'{name}' {text}") for kind, text in doubts]
    return found


def _doubt_quality(x: LabelerReport, pairs: PairsSummary) -> Iterator[tuple[str, str]]:
    quality, longer = x.quality, pairs.human_longer
    agreement, position = quality.agreement, quality.same_position
    if agreement and agreement.low <= 0.5:
        yield "chance labels", f"agrees with humans not measurably better than chance: {rate(agreement)}"
    # If humans mostly prefer one length, a labeler that only follows length is above chance as well.
    elif agreement and longer and agreement.value <= max(longer.value, 1 - longer.value):
        yield (
            "length rule",
            (
                "agrees with humans no better than a rule that only considers length: humans prefer the longer "
                f"response in {rate(longer)}"
            ),
        )
    if position and position.value >= 0.5:
        place = "first" if quality.first_when_same and quality.first_when_same.value > 0.5 else "second"
        yield "position", f"mostly prefers a position rather than a response, usually the {place}: {rate(position)}"


def _doubt_answers(x: LabelerReport) -> Iterator[tuple[str, str]]:
    quality, counts = x.quality, x.record.counts
    if quality.label_token_mass and quality.label_token_mass.value < 0.5:
        low = "almost always" if quality.label_token_mass.value < LOW_MASS else "mostly"
        yield (
            "unreadable",
            (
                f"{low} answers with something other than a label: the probability mass on the label tokens is "
                f"{quality.label_token_mass.value:.2g}"
            ),
        )
    if quality.unparsed and quality.unparsed.value > 0.05:
        yield "unreadable", f"has answers that could not be read: {rate(quality.unparsed)}"
    if counts.refused:
        yield (
            "no label",
            (
                f"has no label for {counts.refused} comparisons because the backend refused to answer; the first "
                f"reason: {counts.first_refusal}"
            ),
        )
    if counts.unanswered:
        yield "run", describe_unanswered(counts.unanswered)
    # The two are not comparable: counts of a few samples are coarser than probabilities.
    if quality.sampled and 0 < quality.sampled.value < 1:
        yield (
            "mixed answers",
            (
                "mixes the model's own probabilities with counts of sampled answers, which make up "
                f"{rate(quality.sampled)} of its answers"
            ),
        )
    if counts.inconsistent:
        yield "no label", f"has no label for {counts.inconsistent} comparisons because the two orders disagree"
    if counts.source_truncated:
        yield (
            "truncated",
            (
                f"labelled {counts.source_truncated} comparisons with a truncated source, because the whole source "
                "does not fit into its model's context"
            ),
        )
    if counts.responses_truncated:
        yield (
            "truncated",
            (
                f"labelled {counts.responses_truncated} comparisons by the beginning of a response, because the "
                "response alone exceeds its model's context"
            ),
        )
