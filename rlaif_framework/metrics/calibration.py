"""Calibration of labels, and agreement by length difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_framework.metrics.agreement import Observation, measure_agreement
from rlaif_framework.metrics.estimates import Estimate, estimate_mean, estimate_rate

HIGH_CONFIDENCE = 0.75


CALIBRATION_BINS = 10


LENGTH_BINS = 5


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Labels of like probability: how often they were right."""

    low: float
    high: float
    stated: float
    """Mean probability the labels gave to the response they prefer."""
    right: Estimate
    """Share of these responses that are the better ones, or the mean human probability that they are."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Whether a probability means what it says."""

    brier: Estimate
    """Mean squared distance between the probability of the first response and the human value; 0.25 for 0.5 always."""
    ece: float
    """Expected calibration error: mean distance between stated and right over the bins, weighted by their counts."""
    bins: list[ReliabilityBin]


def measure_calibration(observations: Sequence[Observation]) -> Calibration | None:
    """Brier score, and reliability in equal bins from 0.5 to 1 of the preferred response's probability.

    Folding at 0.5 makes the result independent of the order of the responses, which means nothing. Human ties are left
    out, as in the agreement.
    """
    rows = [(x.first, x.known) for x in observations if x.decided and x.first is not None and x.known is not None]
    brier = estimate_mean([(first - known) ** 2 for first, known in rows])
    if brier is None:
        return None
    folded: list[list[tuple[float, float]]] = [[] for _ in range(CALIBRATION_BINS)]
    width = 0.5 / CALIBRATION_BINS
    for first, known in rows:
        stated, right = (first, known) if first > 0.5 else (1 - first, 0.5 if first == 0.5 else 1 - known)
        folded[min(int((stated - 0.5) / width + 1e-9), CALIBRATION_BINS - 1)].append((stated, right))
    bins = []
    for index, members in enumerate(folded):
        right_share = estimate_rate(sum(right for _, right in members), len(members))
        if right_share is not None:
            stated = sum(s for s, _ in members) / len(members)
            bins.append(ReliabilityBin(0.5 + index * width, 0.5 + (index + 1) * width, stated, right_share))
    ece = sum(abs(b.stated - b.right.value) * b.right.count for b in bins) / len(rows)
    return Calibration(brier, ece, bins)


@dataclass(frozen=True, slots=True)
class LengthBin:
    """Comparisons alike in how much longer the human's choice is."""

    low: int
    high: int
    """Characters of the response people prefer less those of the other."""
    agreement: Estimate


def measure_lengths(observations: Sequence[Observation]) -> list[LengthBin]:
    """Agreement by length difference, in bins of equal counts.

    A labeler that follows length agrees where people prefer the longer response, and disagrees where they do not.
    """
    rows = sorted(((_longer_choice(x), x) for x in observations if x.decided), key=lambda row: row[0])
    found = []
    for index in range(LENGTH_BINS):
        members = rows[index * len(rows) // LENGTH_BINS : (index + 1) * len(rows) // LENGTH_BINS]
        agreement = measure_agreement(x for _, x in members)
        if agreement is not None:
            found.append(LengthBin(members[0][0], members[-1][0], agreement))
    return found


def measure_disagreement(observations: Sequence[Observation]) -> Estimate | None:
    """Share of an ensemble's comparisons where a member prefers the first response and another the second.

    Comparisons that fewer than two members could read say nothing.
    """
    several = [x.votes for x in observations if len(x.votes) > 1]
    return estimate_rate(sum(min(votes) < 0.5 < max(votes) for votes in several), len(several))


def measure_human_length(observations: Sequence[Observation]) -> Estimate | None:
    """Share of comparisons where people prefer the longer response: what following length would agree with."""
    differences = [_longer_choice(x) for x in observations if x.known not in (None, 0.5) and x.longer]
    return estimate_rate(sum(d > 0 for d in differences), len(differences))


def _longer_choice(observation: Observation) -> int:
    return observation.longer if (observation.known or 0.0) > 0.5 else -observation.longer
