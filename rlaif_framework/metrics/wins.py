"""Win rates between policies, from a judge's preferences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from rlaif_framework.data.human_labels import HumanLabels, find_known
from rlaif_framework.metrics.agreement import score_choice
from rlaif_framework.metrics.correction import CorrectedWinRate, correct_win_rate
from rlaif_framework.metrics.estimates import Estimate, estimate_clustered_rate, estimate_rate_at
from rlaif_framework.records.preferences import Comparison, Preference

Judged = tuple[Comparison, tuple[float, float] | None]
"""A pair of responses, and the judge's probabilities; None for an answer that could not be read."""


@dataclass(frozen=True, slots=True)
class WinRate:
    """Win rate of one policy against another on the same prompts."""

    first: str
    second: str
    judge: str
    """Name of the judge among the evaluation's labelers."""
    rate: Estimate | None
    """Fraction of pairs of responses that the first wins. Ties count half. None if no verdict could be read, or all
    responses are empty."""
    length_adjusted: Estimate | None
    """Win rate for responses of equal length (RLAIF J): a logistic regression on the ratio of their lengths in
    characters, evaluated at 1. None if the regression has no finite solution, or all ratios are on one side of 1."""
    lengths_overlap: bool
    """True if each policy has the longer response of some pairs, or both have the same length."""
    ties: int
    """Pairs without a preference, including those with identical responses."""
    unread: int
    """Pairs whose verdict could not be read, was inconsistent or refused. They are left out of the win rate."""
    empty: int
    """Pairs of two empty responses. They are left out of the win rate."""
    corrected: CorrectedWinRate | None = None
    """The win rate by human preference; None if no pair has a human label."""

    def flip(self) -> WinRate:
        """Return the win rate of the second policy against the first."""
        return replace(
            self,
            first=self.second,
            second=self.first,
            rate=self.rate and self.rate.flip(),
            length_adjusted=self.length_adjusted and self.length_adjusted.flip(),
            corrected=self.corrected and self.corrected.flip(),
        )


def measure_wins(
    first: str,
    second: str,
    judge: str,
    comparisons: Sequence[Comparison],
    preferences: Sequence[Preference],
    human: HumanLabels | None = None,
) -> WinRate:
    """Compute a win rate, also corrected by human labels.

    The first policy's response must be the first of each comparison.
    """
    pairs = [(c, p.probabilities) for c, p in zip(comparisons, preferences, strict=True) if any(c.responses)]
    judged = [(c, probabilities[0]) for c, probabilities in pairs if probabilities]
    unread = len(pairs) - len(judged)
    if all(c.responses[0] == c.responses[1] for c, _ in judged) and unread:
        judged = []  # identical responses are ties without a judge, who could read nothing
    wins = [score_choice(p, True) for _, p in judged]
    sizes = [tuple(map(len, c.responses)) for c, _ in judged]
    prompts = [c.prompt.text for c, _ in judged]
    # An empty response has no ratio of lengths.
    both = [(win, a / b, prompt) for win, (a, b), prompt in zip(wins, sizes, prompts, strict=True) if a and b]
    ratios = [ratio for _, ratio, _ in both]
    return WinRate(
        first,
        second,
        judge,
        rate=estimate_clustered_rate(wins, prompts),
        length_adjusted=estimate_rate_at([win for win, _, _ in both], ratios, 1.0, [prompt for _, _, prompt in both]),
        lengths_overlap=bool(ratios) and min(ratios) <= 1 <= max(ratios),
        ties=sum(win == 0.5 for win in wins),
        unread=unread,
        empty=len(comparisons) - len(pairs),
        corrected=_correct(pairs, human) if human is not None else None,
    )


def _correct(pairs: Sequence[Judged], human: HumanLabels) -> CorrectedWinRate | None:
    """Correct a win rate. A verdict that could not be read counts as a tie, whose errors are corrected like others."""
    return correct_win_rate(
        judge=[0.5 if probabilities is None else probabilities[0] for _, probabilities in pairs],
        human=[human.find(comparison) for comparison, _ in pairs],
        prompts=[comparison.prompt.text for comparison, _ in pairs],
        known=[find_known(comparison) for comparison, _ in pairs],
    )
