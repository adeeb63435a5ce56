"""Win rates between policies, from a judge's preferences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlaif_framework.metrics.agreement import score_choice
from rlaif_framework.metrics.estimates import Estimate, estimate_rate, estimate_rate_at
from rlaif_framework.records.preferences import Comparison, Preference


@dataclass(frozen=True, slots=True)
class WinRate:
    """Win rate of one policy against another on the same prompts."""

    first: str
    second: str
    rate: Estimate | None
    """Fraction of prompts that the first wins. Ties count half."""
    length_adjusted: Estimate | None
    """Win rate for responses of equal length (RLAIF J): a logistic regression on the ratio of their lengths in
    characters, evaluated at 1. None if the regression has no finite solution."""
    ties: int
    """Prompts without a preference, including those with identical responses."""


def measure_wins(
    first: str, second: str, comparisons: Sequence[Comparison], preferences: Sequence[Preference]
) -> WinRate:
    """Compute a win rate. The first policy's response must be the first of each comparison."""
    judged = [(c, p.probabilities[0]) for c, p in zip(comparisons, preferences, strict=True) if p.probabilities]
    wins = [score_choice(p, True) for _, p in judged]
    sizes = [tuple(map(len, c.responses)) for c, _ in judged]
    # An empty response has no ratio of lengths.
    both = [(win, a / b) for win, (a, b) in zip(wins, sizes, strict=True) if a and b]
    return WinRate(
        first,
        second,
        rate=estimate_rate(sum(wins), len(wins)),
        length_adjusted=estimate_rate_at([win for win, _ in both], [ratio for _, ratio in both], at=1.0),
        ties=sum(win == 0.5 for win in wins),
    )
