"""Bias of a judge from the effect of planted changes, and its agreement with people beyond chance (Cohen's kappa)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rlaif_framework.metrics.agreement import Observation
from rlaif_framework.metrics.estimates import (
    CONFIDENCE,
    Estimate,
    clustered_p_value,
    estimate_clustered_rate,
    estimate_mean,
)

MIN_PROMPTS = 10
"""Fewer prompts than these give no verdict: a t-test on them is not reliable."""

SIGNIFICANCE = 1 - CONFIDENCE
"""A bias with a smaller p-value, adjusted by Holm's method over the probes, differs from 0."""

Verdict = Literal["biased", "punished", "within tolerance", "unclear"]


@dataclass(frozen=True, slots=True)
class Bias:
    """The mean effect of a change, with a test that it is 0."""

    effect: Estimate
    """Change of the win rate, from -0.5 to 0.5; positive if the change is rewarded."""
    p: float
    """P-value of a cluster-robust t-test."""


def win_rate(forward: float | None, swapped: float | None) -> float | None:
    """Average both orders of a pair: the probability that its first response wins; None if one is missing.

    Args:
        forward: The label's probability of the response shown first, in the order of the pair.
        swapped: The same in the swapped order.
    """
    return None if forward is None or swapped is None else (forward + 1 - swapped) / 2


def win_rate_change(first_changed: float | None, second_changed: float | None) -> float | None:
    """Return by how much a change raises the win rate of a response, averaged over both responses of a pair.

    With P the probability that the first response wins, and A' and B' the changed responses, the average of
    P(A', B) - P(A, B) and P(A, B) - P(A, B') does not depend on P(A, B).

    Args:
        first_changed: P(A', B).
        second_changed: P(A, B').

    Returns:
        A number from -0.5 to 0.5; None if a label is missing.
    """
    return None if first_changed is None or second_changed is None else (first_changed - second_changed) / 2


def measure_bias(effects: Sequence[float], prompts: Sequence[Hashable]) -> Bias | None:
    """Estimate the mean of effects, with an interval and a test that are robust to correlation within prompts.

    Args:
        effects: The effect on each pair.
        prompts: The prompt of each pair.

    Returns:
        None with fewer than `MIN_PROMPTS` prompts.
    """
    effect = estimate_mean(effects, prompts)
    if effect is None or len(set(prompts)) < MIN_PROMPTS:
        return None
    return Bias(effect, clustered_p_value(effects, prompts))


def judge_effect(effect: Estimate, p: float, tolerance: float, either: bool) -> Verdict:
    """Decide whether an effect is a bias.

    Args:
        effect: The change of the win rate.
        p: Its p-value, adjusted for the number of probes.
        tolerance: Largest change that is accepted.
        either: True if a judge should not punish the change either.

    Returns:
        `biased` if the effect differs from 0 significantly and is at least the tolerance; `punished` if so for a change
        that a judge may punish; `within tolerance` if no larger effect is in the interval, and otherwise `unclear`.
    """
    if p < SIGNIFICANCE and abs(effect.value) >= tolerance:
        return "biased" if either or effect.value > 0 else "punished"
    inside = effect.high <= tolerance and (effect.low >= -tolerance or not either)
    return "within tolerance" if inside else "unclear"


def measure_kappa(observations: Sequence[Observation]) -> Estimate | None:
    """Compute Cohen's kappa of labels and gold preferences: agreement beyond chance (Cohen 1960).

    It is over decided observations, as the agreement. The labeler's exact ties are a category of their own. The
    variance is that of Fleiss, Cohen and Everitt (1969), robust to correlation within prompts, and the interval is by
    Student's t.

    Returns:
        None without observations, or if chance alone would give perfect agreement: all are of one category.
    """
    decided = [x for x in observations if x.decided and x.first is not None and x.gold is not None]
    if not decided:
        return None
    rows = [(_side(x.first or 0.0), _side(x.gold or 0.0)) for x in decided]
    return estimate_kappa(rows, [x.prompt for x in decided])


def estimate_kappa(rows: Sequence[tuple[int, int]], clusters: Sequence[Hashable]) -> Estimate | None:
    """Compute Cohen's kappa of two raters, with the interval of `measure_kappa`.

    Args:
        rows: The categories that the two chose for each case.
        clusters: The cluster of each case, such as its prompt.

    Returns:
        None without cases, or if all are of one category.
    """
    if not rows:
        return None
    count, categories = len(rows), {category for row in rows for category in row}
    first, second = ({x: sum(row[i] == x for row in rows) / count for x in categories} for i in (0, 1))
    by_chance = sum(first[x] * second[x] for x in sorted(categories))
    if math.isclose(by_chance, 1):
        return None
    agreed = sum(a == b for a, b in rows) / count
    kappa = (agreed - by_chance) / (1 - by_chance)
    # The influence of each case on kappa (the delta method). Their mean is 0, and their variance that of kappa.
    influences = [
        kappa + ((a == b) - agreed - (1 - kappa) * (second[a] + first[b] - 2 * by_chance)) / (1 - by_chance)
        for a, b in rows
    ]
    found = estimate_mean(influences, clusters)
    agreement = estimate_clustered_rate([float(a == b) for a, b in rows], clusters)
    if found is None or agreement is None:
        return None
    if len(set(clusters)) == 1:  # a single prompt says nothing about others
        return replace(found, low=-1.0, high=1.0)
    if min(influences) == max(influences):  # such as perfect agreement: as far as agreement may be lower by chance
        low, high = ((rate - by_chance) / (1 - by_chance) for rate in (agreement.low, agreement.high))
        found = replace(found, low=low, high=high)
    return replace(found, low=max(found.low, -1.0), high=min(found.high, 1.0))


def measure_own_preference(observations: Sequence[Observation], own: Sequence[bool]) -> Bias | None:
    """Measure how much more often a judge sees the better response if it is the judge's own.

    This is half of the difference between the agreement with gold preferences for own responses and that for others
    ("equal opportunity", Wataoka et al. 2024): by so much, the preference raises the win rate of own responses. A judge
    that is only inaccurate has 0.

    Args:
        observations: Decided observations of pairs with one response by the judge's own model.
        own: For each, True if its first response is the own one.

    Returns:
        None with fewer than `MIN_PROMPTS` prompts, or if own responses are always better or never.
    """
    won = [((x.gold or 0.0) > 0.5) == first for x, first in zip(observations, own, strict=True)]
    correct, count = [x.correct for x in observations], len(won)
    sizes = {side: won.count(side) for side in (True, False)}
    if not all(sizes.values()):
        return None
    means = {side: sum(c for c, w in zip(correct, won, strict=True) if w == side) / sizes[side] for side in sizes}
    effect = (means[True] - means[False]) / 2
    signs = {True: 0.5, False: -0.5}
    # The influence of each observation on the effect, as for kappa.
    influences = [effect + signs[w] * (c - means[w]) * count / sizes[w] for c, w in zip(correct, won, strict=True)]
    return measure_bias(influences, [x.prompt for x in observations])


def _side(first: float) -> int:
    return (first > 0.5) - (first < 0.5)
