"""Compare labelers on the same comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from rlaif_framework.metrics.agreement import Observation, estimate_by_prompt
from rlaif_framework.metrics.estimates import Estimate, adjust_holm, clustered_p_value, paired_p_value


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
    """P-value of the exact McNemar test or, if some prompts have several comparisons, of a cluster-robust t-test; None
    without gold preferences."""
    p_holm: float | None
    """The p-value, adjusted for multiple comparisons by Holm's method."""


def compare_labelers(observations: dict[str, Sequence[Observation]]) -> list[PairedComparison]:
    """Compare every two labelers on the comparisons for which both have a label that is not a tie.

    Labels copied from gold preferences are left out, since they are always correct.
    """
    found = [_compare_pair(a, b, observations[a], observations[b]) for a, b in combinations(observations, 2)]
    # Only pairs with comparisons to test count for the adjustment.
    adjusted = iter(adjust_holm([pair.p for pair in found if pair.p is not None]))
    return [pair if pair.p is None else replace(pair, p_holm=next(adjusted)) for pair in found]


def _compare_pair(first: str, second: str, a: Sequence[Observation], b: Sequence[Observation]) -> PairedComparison:
    both = [(x, y) for x, y in zip(a, b, strict=True) if x.first not in (None, 0.5) and y.first not in (None, 0.5)]
    same = [(x.prompt, ((x.first or 0.0) > 0.5) == ((y.first or 0.0) > 0.5)) for x, y in both]
    decided = [(x, y) for x, y in both if x.decided and not (x.copied or y.copied)]
    differences = [x.correct - y.correct for x, y in decided]
    first_only, second_only = differences.count(1), differences.count(-1)
    prompts = [x.prompt for x, _ in decided]
    p = None
    if decided and len(set(prompts)) < len(prompts):
        p = clustered_p_value(differences, prompts)
    elif decided:
        p = paired_p_value(first_only, second_only)
    return PairedComparison(
        first,
        second,
        estimate_by_prompt(same),
        len(decided),
        first_only,
        second_only,
        (first_only - second_only) / len(decided) if decided else None,
        p,
        None,
    )
