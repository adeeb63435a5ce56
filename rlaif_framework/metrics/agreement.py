"""How good labels, reward models and policies are, from records alone (RLAIF 4: metrics)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from sys import intern
from typing import get_args

from rlaif_framework.metrics.estimates import Estimate, estimate_mean, estimate_rate
from rlaif_framework.records.preferences import Comparison, Preference, PreferenceSource


@dataclass(frozen=True, slots=True)
class LabelerQuality:
    """A labeler measured against known preferences."""

    agreement: Estimate | None
    """AI labeler alignment: share of decided comparisons whose known better response gets the higher probability."""
    slices: dict[str, Estimate]
    """The same, by slice."""
    same_position: Estimate | None
    """Share of comparisons where the same position is preferred in both orders: position bias."""
    first_when_same: Estimate | None
    """Among those, the share that prefers the first position."""
    label_token_mass: Estimate | None
    """Mean probability of the label tokens over the whole vocabulary."""
    unparsed: Estimate | None
    """Share of comparisons without a readable answer; they count in no other number."""
    refused: Estimate | None
    """Share of comparisons that the backend would not answer; they count in no other number."""
    sampled: Estimate | None
    """Share of the ballots read that are counted from written answers, not the model's own probabilities."""
    longer_wins: Estimate | None
    """Share of comparisons where the longer response (in characters) gets the higher probability."""
    gold_source: str | None
    """Who knows the preferences: `human` or `construction`."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a label says about its comparison, without the texts: all that measuring takes."""

    first: float | None
    """The label's probability that the first response is better; None if unparsed, inconsistent or refused."""
    known: float | None
    gold_source: str | None
    confidence: float | None
    slice: str | None
    longer: int
    """Characters of the first response less those of the second."""
    orders: tuple[tuple[float, float] | None, ...]
    """Probabilities of each ballot, as its order showed the responses."""
    masses: tuple[float, ...]
    inconsistent: bool = False
    """Whether the label was withheld because both orders disagree."""
    refused: bool = False
    """Whether there is no label because the backend would not answer."""
    sampled: tuple[bool, ...] = ()
    """Whether each ballot that could be read is counted from written answers."""
    source: str = ""
    """Who gave the label: a labeler's kind, or who knew the preference that was handed out as the label."""
    votes: tuple[float, ...] = ()
    """What each member of an ensemble gave the first response, those left out that could not be read."""

    @property
    def copied(self) -> bool:
        """Whether the label is the known preference itself: its agreement with that says nothing."""
        return self.source in get_args(PreferenceSource)

    @property
    def decided(self) -> bool:
        """Whether there is a label, and a known preference that is no tie."""
        return self.first is not None and self.known not in (None, 0.5)

    @property
    def right(self) -> float:
        """1 if a decided label agrees with the known preference, 0 if not; an exact tie is half right."""
        return _agrees(0.5 if self.first is None else self.first, (self.known or 0.0) > 0.5)


def observe(comparison: Comparison, preference: Preference) -> Observation:
    """Reduce a label to what measuring takes."""
    ballots = preference.evidence.orders
    return Observation(
        None if preference.probabilities is None else preference.probabilities[0],
        comparison.preference,
        comparison.preference_source,
        comparison.confidence,
        comparison.slice,
        len(comparison.responses[0]) - len(comparison.responses[1]),
        tuple(ballot.probabilities for ballot in ballots),
        tuple(ballot.mass for ballot in ballots if ballot.mass is not None),
        preference.evidence.inconsistent,
        preference.evidence.refused is not None,
        tuple(b.sampled > 0 for b in ballots if b.sampled or b.mass is not None or b.probabilities is not None),
        intern(preference.evidence.source),  # one text for all: very many may be kept
        tuple(vote.probabilities[0] for vote in preference.evidence.members if vote.probabilities is not None),
    )


def measure_labeler(comparisons: Sequence[Comparison], preferences: Sequence[Preference]) -> LabelerQuality:
    """Measure labels; ties of the known preference are left out, a labeler's exact tie counts as half right.

    Where only some labels are the known preferences themselves (of a mix), they say nothing about the others and are
    left out.
    """
    observations = [observe(c, p) for c, p in zip(comparisons, preferences, strict=True)]
    return measure_observations([x for x in observations if not x.copied] or observations)


def measure_observations(observations: Sequence[Observation]) -> LabelerQuality:
    """Measure labels that were reduced to observations."""
    parsed = [x for x in observations if x.first is not None]
    decided = [x for x in parsed if x.decided]
    names = sorted({x.slice for x in decided if x.slice is not None})
    slices = {name: measure_agreement(x for x in decided if x.slice == name) for name in names}
    both = [x.orders for x in observations if len(x.orders) == 2]
    firsts = [(a[0] > 0.5, b[0] > 0.5) for a, b in both if a is not None and b is not None and 0.5 not in (a[0], b[0])]
    same = [a for a, b in firsts if a == b]
    lengths = [_agrees(x.first, x.longer > 0) for x in parsed if x.longer != 0 and x.first is not None]
    sources = sorted({x.gold_source for x in decided if x.gold_source is not None})
    return LabelerQuality(
        agreement=measure_agreement(decided),
        slices={name: value for name, value in slices.items() if value is not None},
        same_position=estimate_rate(len(same), len(firsts)),
        first_when_same=estimate_rate(sum(same), len(same)),
        label_token_mass=estimate_mean([mass for x in observations for mass in x.masses]),
        unparsed=estimate_rate(
            sum(x.first is None and not (x.inconsistent or x.refused) for x in observations), len(observations)
        ),
        refused=estimate_rate(sum(x.refused for x in observations), len(observations)),
        sampled=estimate_rate(sum(sum(x.sampled) for x in observations), sum(len(x.sampled) for x in observations)),
        longer_wins=estimate_rate(sum(lengths), len(lengths)),
        gold_source=" and ".join(sources) or None,
    )


def measure_agreement(observations: Iterable[Observation]) -> Estimate | None:
    """Share of the decided observations whose label agrees with the known preference."""
    scores = [x.right for x in observations if x.decided]
    return estimate_rate(sum(scores), len(scores))


def _agrees(first: float, first_is_better: bool) -> float:
    if first == 0.5:
        return 0.5
    return float((first > 0.5) == first_is_better)


def measure_margins(
    comparisons: Sequence[Comparison], margins: Sequence[float], better: Callable[[int], float | None]
) -> Estimate | None:
    """Pairwise accuracy of a reward model: share of pairs whose better response scores higher (RLAIF 4).

    Args:
        comparisons: The pairs.
        margins: Reward of the first response minus that of the second.
        better: Probability that the first response of pair i is the better one; None or 0.5 leaves the pair out.
    """
    scores = []
    for index in range(len(comparisons)):
        first = better(index)
        if first is None or first == 0.5:
            continue
        scores.append(0.5 if margins[index] == 0 else float((margins[index] > 0) == (first > 0.5)))
    return estimate_rate(sum(scores), len(scores))
