"""Calibration of labels, agreement by length difference, and disagreement within ensembles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_framework.metrics.agreement import Observation, estimate_by_prompt, measure_agreement
from rlaif_framework.metrics.estimates import Estimate

HIGH_CONFIDENCE = 0.75
"""Minimum human confidence for the agreement on confident comparisons: ratings of 1, 2, 8 or 9 (RLAIF)."""

CALIBRATION_BINS = 10
"""Number of bins between 0.5 and 1."""

LENGTH_BINS = 5
"""Number of bins of the length difference."""


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Accuracy of the labels whose confidence is in one bin."""

    low: float
    high: float
    confidence: float
    """Mean probability of the preferred response."""
    accuracy: Estimate
    """Fraction of preferred responses that are the better ones, or the mean gold probability that they are."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration of labels: the match between their probabilities and the observed frequencies."""

    brier: Estimate
    """Mean squared difference between the label's and the gold probability; 0.25 if the label is always 0.5."""
    ece: float
    """Expected calibration error: mean difference between confidence and accuracy over the bins, weighted by count."""
    bins: list[ReliabilityBin]


def measure_calibration(observations: Sequence[Observation]) -> Calibration | None:
    """Compute the Brier score, and the accuracy in bins of equal width of the preferred response's probability.

    Probabilities are folded at 0.5, so that the result does not depend on the arbitrary order of the responses. Gold
    ties are left out, as in the agreement.
    """
    rows = [
        (x.prompt, x.first, x.gold) for x in observations if x.decided and x.first is not None and x.gold is not None
    ]
    brier = estimate_by_prompt((prompt, (first - gold) ** 2) for prompt, first, gold in rows)
    if brier is None:
        return None
    folded: list[list[tuple[int, float, float]]] = [[] for _ in range(CALIBRATION_BINS)]
    width = 0.5 / CALIBRATION_BINS
    for prompt, first, gold in rows:
        confidence, correct = (first, gold) if first > 0.5 else (1 - first, 0.5 if first == 0.5 else 1 - gold)
        # 1e-9: a confidence on the edge of two bins must not depend on rounding; 1.0 belongs to the last bin.
        folded[min(int((confidence - 0.5) / width + 1e-9), CALIBRATION_BINS - 1)].append((prompt, confidence, correct))
    bins = []
    for index, members in enumerate(folded):
        accuracy = estimate_by_prompt((prompt, correct) for prompt, _, correct in members)
        if accuracy is not None:
            confidence = sum(c for _, c, _ in members) / len(members)
            bins.append(ReliabilityBin(0.5 + index * width, 0.5 + (index + 1) * width, confidence, accuracy))
    ece = sum(abs(b.confidence - b.accuracy.value) * b.accuracy.count for b in bins) / len(rows)
    return Calibration(brier, ece, bins)


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Agreement on comparisons with a similar length difference."""

    low: int
    """Smallest length difference: characters of the better response minus those of the other one."""
    high: int
    """Largest length difference."""
    agreement: Estimate


def measure_lengths(observations: Sequence[Observation]) -> list[LengthBin]:
    """Measure agreement by length difference, in bins of equal counts.

    A labeler that prefers longer responses agrees if the better response is the longer one, and disagrees otherwise.
    """
    # By the difference alone: observations have no order.
    rows = sorted(((_longer_choice(x), x) for x in observations if x.decided), key=lambda row: row[0])
    found = []
    for index in range(LENGTH_BINS):
        members = rows[index * len(rows) // LENGTH_BINS : (index + 1) * len(rows) // LENGTH_BINS]
        agreement = measure_agreement(x for _, x in members)
        if agreement is not None:
            found.append(LengthBin(members[0][0], members[-1][0], agreement))
    return found


def measure_disagreement(observations: Sequence[Observation]) -> Estimate | None:
    """Return the fraction of comparisons where members of an ensemble prefer different responses.

    Comparisons are left out if the answers of fewer than two members could be read.
    """
    several = [x for x in observations if len(x.votes) > 1]
    return estimate_by_prompt((x.prompt, min(x.votes) < 0.5 < max(x.votes)) for x in several)


def measure_human_length(observations: Sequence[Observation]) -> Estimate | None:
    """Return the fraction of comparisons whose better response is the longer one, as a baseline for the agreement."""
    decided = [x for x in observations if x.gold not in (None, 0.5) and x.longer]
    return estimate_by_prompt((x.prompt, _longer_choice(x) > 0) for x in decided)


def _longer_choice(observation: Observation) -> int:
    return observation.longer if (observation.gold or 0.0) > 0.5 else -observation.longer
