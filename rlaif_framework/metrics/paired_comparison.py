"""Compare labelers on the same comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from rlaif_framework.metrics.agreement import Observation
from rlaif_framework.metrics.estimates import Estimate, adjust_holm, estimate_rate, paired_p_value


@dataclass(frozen=True, slots=True)
class PairedComparison:
    """Two labelers on the same comparisons."""

    first: str
    second: str
    alike: Estimate | None
    """Share of comparisons where both prefer the same response; needs no human."""
    count: int
    """Comparisons with a human preference that both decide themselves; the rest of this record is about them."""
    first_only: int
    second_only: int
    """Comparisons only one of them got right."""
    difference: float | None
    """Agreement of the first less that of the second."""
    p: float | None
    """Exact McNemar test of no difference; None without human preferences."""
    p_holm: float | None
    """The same, adjusted for all pairs of labelers by Holm's method."""


def compare_labelers(observations: dict[str, Sequence[Observation]]) -> list[PairedComparison]:
    """Compare every two labelers; a comparison that either leaves unparsed or tied counts for neither.

    Nor does one whose label either was handed out from what is known: it would be right by itself.
    """
    pairs = list(combinations(observations, 2))
    counted = [_count_pair(observations[a], observations[b]) for a, b in pairs]
    values = [paired_p_value(first, second) for _, count, first, second in counted if count]
    adjusted = iter(adjust_holm(values))
    raw = iter(values)
    return [
        PairedComparison(
            a,
            b,
            alike,
            count,
            first,
            second,
            (first - second) / count if count else None,
            next(raw) if count else None,
            next(adjusted) if count else None,
        )
        for (a, b), (alike, count, first, second) in zip(pairs, counted, strict=True)
    ]


def _count_pair(a: Sequence[Observation], b: Sequence[Observation]) -> tuple[Estimate | None, int, int, int]:
    both = [(x, y) for x, y in zip(a, b, strict=True) if x.first not in (None, 0.5) and y.first not in (None, 0.5)]
    same = sum(((x.first or 0.0) > 0.5) == ((y.first or 0.0) > 0.5) for x, y in both)
    decided = [(x.right, y.right) for x, y in both if x.decided and not (x.copied or y.copied)]
    first = sum(x > y for x, y in decided)
    second = sum(y > x for x, y in decided)
    return estimate_rate(same, len(both)), len(decided), first, second
