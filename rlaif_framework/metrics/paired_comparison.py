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
    same_preference: Estimate | None
    """Fraction of comparisons where both prefer the same response. Gold preferences are not needed."""
    count: int
    """Comparisons with a gold preference that both labelled themselves. The remaining fields are about these."""
    first_only: int
    """Comparisons that only the first got right."""
    second_only: int
    """Comparisons that only the second got right."""
    difference: float | None
    """Agreement of the first minus that of the second."""
    p: float | None
    """P-value of the exact McNemar test; None without gold preferences."""
    p_holm: float | None
    """The p-value, adjusted for multiple comparisons by Holm's method."""


def compare_labelers(observations: dict[str, Sequence[Observation]]) -> list[PairedComparison]:
    """Compare every two labelers on the comparisons for which both have a label that is not a tie.

    Labels copied from gold preferences are left out, since they are always correct.
    """
    pairs = list(combinations(observations, 2))
    counted = [_count_pair(observations[a], observations[b]) for a, b in pairs]
    # Only pairs with comparisons to test count for the adjustment.
    values = [paired_p_value(first, second) for _, count, first, second in counted if count]
    adjusted = iter(adjust_holm(values))
    raw = iter(values)
    return [
        PairedComparison(
            a,
            b,
            same_preference,
            count,
            first,
            second,
            (first - second) / count if count else None,
            next(raw) if count else None,
            next(adjusted) if count else None,
        )
        for (a, b), (same_preference, count, first, second) in zip(pairs, counted, strict=True)
    ]


def _count_pair(a: Sequence[Observation], b: Sequence[Observation]) -> tuple[Estimate | None, int, int, int]:
    both = [(x, y) for x, y in zip(a, b, strict=True) if x.first not in (None, 0.5) and y.first not in (None, 0.5)]
    same = sum(((x.first or 0.0) > 0.5) == ((y.first or 0.0) > 0.5) for x, y in both)
    decided = [(x.correct, y.correct) for x, y in both if x.decided and not (x.copied or y.copied)]
    first = sum(x > y for x, y in decided)
    second = sum(y > x for x, y in decided)
    return estimate_rate(same, len(both)), len(decided), first, second
