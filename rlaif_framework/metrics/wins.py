"""Win rates between policies, from a judge's preferences, and differences of their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlaif_framework.metrics.agreement import score_choice
from rlaif_framework.metrics.estimates import Estimate, estimate_clustered_rate, estimate_mean, estimate_rate_at
from rlaif_framework.records.preferences import Comparison, Preference, Prompt


@dataclass(frozen=True, slots=True)
class WinRate:
    """Win rate of one policy against another on the same prompts."""

    first: str
    second: str
    judge: str
    """Name of the judge among the evaluation's labelers."""
    rate: Estimate | None
    """Fraction of pairs of responses that the first wins. Ties count half."""
    length_adjusted: Estimate | None
    """Win rate for responses of equal length (RLAIF J): a logistic regression on the ratio of their lengths in
    characters, evaluated at 1. None if the regression has no finite solution."""
    ties: int
    """Pairs without a preference, including those with identical responses."""


def measure_wins(
    first: str, second: str, judge: str, comparisons: Sequence[Comparison], preferences: Sequence[Preference]
) -> WinRate:
    """Compute a win rate. The first policy's response must be the first of each comparison."""
    judged = [(c, p.probabilities[0]) for c, p in zip(comparisons, preferences, strict=True) if p.probabilities]
    wins = [score_choice(p, True) for _, p in judged]
    sizes = [tuple(map(len, c.responses)) for c, _ in judged]
    # An empty response has no ratio of lengths.
    prompts = [c.prompt.text for c, _ in judged]
    both = [(win, a / b, prompt) for win, (a, b), prompt in zip(wins, sizes, prompts, strict=True) if a and b]
    return WinRate(
        first,
        second,
        judge,
        rate=estimate_clustered_rate(wins, prompts),
        length_adjusted=estimate_rate_at(
            [win for win, _, _ in both], [ratio for _, ratio, _ in both], 1.0, [prompt for _, _, prompt in both]
        ),
        ties=sum(win == 0.5 for win in wins),
    )


def measure_differences(
    first: Sequence[Mapping[str, float]], second: Sequence[Mapping[str, float]], prompts: Sequence[Prompt]
) -> dict[str, Estimate]:
    """Compute the mean difference of each metric that both policies have, first minus second, paired by response."""
    clusters = [prompt.text for prompt in prompts]
    names = [name for name in first[0] if name in second[0]] if first and second else []
    found = {
        name: estimate_mean([a[name] - b[name] for a, b in zip(first, second, strict=True)], clusters) for name in names
    }
    return {name: estimate for name, estimate in found.items() if estimate is not None}
