"""How good labels, reward models and policies are, from records alone (RLAIF 4: metrics)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import get_args

from rlaif_framework.statistics import Estimate, estimate_mean, estimate_rate
from rlaif_framework.types import Comparison, Preference, PreferenceSource


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
    label_mass: Estimate | None
    """Mean probability of the label tokens over the whole vocabulary."""
    unparsed: Estimate | None
    """Share of comparisons without a readable answer; they count in no other number."""
    longer_wins: Estimate | None
    """Share of comparisons where the longer response (in characters) gets the higher probability."""
    known_by: str | None
    """Who knows the preferences: `human` or `construction`."""


def measure_labeler(comparisons: Sequence[Comparison], preferences: Sequence[Preference]) -> LabelerQuality:
    """Measure labels; ties of the known preference are left out, a labeler's exact tie counts as half right.

    Where only some labels are the known preferences themselves (of a mix), they say nothing about the others and are
    left out.
    """
    pairs = list(zip(comparisons, preferences, strict=True))
    own = [(c, p) for c, p in pairs if p.evidence.source not in get_args(PreferenceSource)]
    pairs = own or pairs
    parsed = [(c, p.probabilities) for c, p in pairs if p.probabilities is not None]
    decided = [(c, probabilities[0]) for c, probabilities in parsed if c.preference not in (None, 0.5)]

    def agreement(rows: Iterable[tuple[Comparison, float]]) -> Estimate | None:
        scores = [_agrees(first, (c.preference or 0.0) > 0.5) for c, first in rows]
        return estimate_rate(sum(scores), len(scores))

    names = sorted({c.slice for c, _ in decided if c.slice is not None})
    slices = {name: agreement((c, p) for c, p in decided if c.slice == name) for name in names}
    both = [
        (p.evidence.orders[0].probabilities, p.evidence.orders[1].probabilities)
        for _, p in pairs
        if len(p.evidence.orders) == 2
    ]
    firsts = [(a[0] > 0.5, b[0] > 0.5) for a, b in both if a is not None and b is not None and 0.5 not in (a[0], b[0])]
    same = [a for a, b in firsts if a == b]
    masses = [b.mass for _, p in pairs for b in p.evidence.orders if b.mass is not None]
    lengths = [
        (len(c.responses[0]) > len(c.responses[1]), p[0])
        for c, p in parsed
        if len(c.responses[0]) != len(c.responses[1])
    ]
    sources = sorted({c.preference_source for c, _ in decided if c.preference_source is not None})
    return LabelerQuality(
        agreement=agreement(decided),
        slices={name: value for name, value in slices.items() if value is not None},
        same_position=estimate_rate(len(same), len(firsts)),
        first_when_same=estimate_rate(sum(same), len(same)),
        label_mass=estimate_mean(masses),
        unparsed=estimate_rate(len(pairs) - len(parsed), len(pairs)),
        longer_wins=estimate_rate(sum(_agrees(p, longer) for longer, p in lengths), len(lengths)),
        known_by=" and ".join(sources) or None,
    )


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


@dataclass(frozen=True, slots=True)
class WinRate:
    """How often one policy's response is preferred to another's, on the same prompts."""

    first: str
    second: str
    rate: Estimate | None
    """Share of prompts won by the first, ties half."""
    ties: int
    """Prompts where the judge saw no difference, equal responses included."""


def measure_wins(first: str, second: str, preferences: Sequence[Preference]) -> WinRate:
    """Win rate from a judge's preferences, the first policy's response always the first of the comparison."""
    probabilities = [p.probabilities[0] for p in preferences if p.probabilities is not None]
    wins = sum(_agrees(p, True) for p in probabilities)
    return WinRate(first, second, estimate_rate(wins, len(probabilities)), sum(p == 0.5 for p in probabilities))
