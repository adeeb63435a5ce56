"""Measure a checked judge: the effect of each probe, and disagreements with people."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from heapq import nlargest
from statistics import fmean

from rlaif_framework.labelling.judge_report import Disagreement, ProbeResult
from rlaif_framework.labelling.probes import POSITION, Probe
from rlaif_framework.metrics.agreement import Observation, observe
from rlaif_framework.metrics.estimates import Estimate, adjust_holm, estimate_mean
from rlaif_framework.metrics.judge_bias import (
    MIN_PROMPTS,
    Bias,
    judge_effect,
    measure_bias,
    measure_own_preference,
    win_rate,
    win_rate_change,
)
from rlaif_framework.records.preferences import Comparison, Preference

DISAGREEMENTS = 50
"""Number of disagreements that are kept."""

Orders = tuple[Preference, Preference]
"""The labels of a pair, and of the same pair with its responses swapped."""


@dataclass(frozen=True, slots=True)
class Effect:
    """The effect of a probe on one pair."""

    pair: Comparison
    value: float
    """From -0.5 to 0.5."""
    wording: str | None = None


def observe_orders(pair: Comparison, orders: Orders) -> Observation:
    """Reduce the label of a pair to what measurements need, with the probabilities of both orders."""
    firsts = _read_firsts(orders)
    return replace(observe(pair, orders[0]), orders=tuple((first, 1 - first) for first in firsts or ()))


def averages_orders(labels: Iterable[Orders]) -> bool:
    """Return True if labels average both orders, of which their evidence then has the ballots."""
    return any(_read_ballots(label) is not None for label, _ in labels)


def find_position_effects(copies: Iterable[tuple[Comparison, Orders]]) -> list[Effect]:
    """Return by how much the probability of the first position exceeds one half, averaged over both orders.

    If labels average both orders, these are the probabilities of their ballots.

    Args:
        copies: Pairs and their labels; the effects on pairs with the same id, such as changed copies, are averaged.
    """
    values: dict[str, list[float]] = {}
    pairs: dict[str, Comparison] = {}
    for pair, orders in copies:
        firsts = _read_firsts(orders)
        if firsts is not None:
            pairs.setdefault(pair.id, pair)
            values.setdefault(pair.id, []).append(sum(firsts) / 2 - 0.5)
    return [Effect(pair, fmean(values[name])) for name, pair in pairs.items()]


def find_probe_effects(
    probe: Probe,
    round_: int,
    pairs: Sequence[Comparison],
    first_changed: Sequence[Orders],
    second_changed: Sequence[Orders],
) -> list[Effect]:
    """Return the change of the win rate by a round of a probe, for each pair whose answers could all be read."""
    effects = []
    for number, (pair, first, second) in enumerate(zip(pairs, first_changed, second_changed, strict=True)):
        value = win_rate_change(_find_win_rate(first), _find_win_rate(second))
        if value is not None:
            effects.append(Effect(pair, value, probe.wording(number + round_).changed))
    return effects


def summarise_effects(result: ProbeResult, effects: Sequence[Effect]) -> ProbeResult:
    """Add the mean effect of a probe to its result, over all pairs, by wording and by slice."""
    bias = measure_bias([x.value for x in effects], [x.pair.prompt.text for x in effects])
    found = _add_bias(result, bias, f"needs pairs of {MIN_PROMPTS} prompts with answers that can be read")
    wordings, slices = _average_by(effects, lambda x: x.wording), _average_by(effects, lambda x: x.pair.slice)
    return found.model_copy(update={"wordings": wordings, "slices": slices})


def add_own_preference(
    result: ProbeResult, observations: Sequence[Observation], own: Sequence[bool | None]
) -> ProbeResult:
    """Add the preference for responses of the judge's own model to its result.

    Args:
        result: The result so far.
        observations: One for each pair.
        own: True if its first response is by the judge's model, False if the second is; None if neither or both.
    """
    decided = [(x, first) for x, first in zip(observations, own, strict=True) if first is not None and x.decided]
    bias = measure_own_preference([x for x, _ in decided], [first for _, first in decided])
    return _add_bias(
        result,
        bias,
        f"needs pairs of {MIN_PROMPTS} prompts in which people prefer one response, and the model wrote one (columns "
        "model_a and model_b, or chosen_model and rejected_model), sometimes the better one and sometimes the worse",
    )


def decide_verdicts(results: Sequence[ProbeResult], tolerance: float, averaged: bool) -> list[ProbeResult]:
    """Adjust the p-values of the probes together, and decide about each.

    Args:
        results: The results.
        tolerance: Largest effect that is accepted, as a fraction.
        averaged: True if labels average both orders, so that a preference for a position is no bias of theirs.
    """
    tested = {x.probe: x.p for x in results if x.p is not None and not (averaged and x.probe == POSITION)}
    adjusted = dict(zip(tested, adjust_holm(list(tested.values())), strict=True))

    def decide(result: ProbeResult) -> ProbeResult:
        if result.effect is None:
            return result
        if result.probe not in adjusted:
            return result.model_copy(update={"verdict": "averaged out"})
        p = adjusted[result.probe]
        verdict = judge_effect(result.effect, p, tolerance, result.either)
        return result.model_copy(update={"p_holm": p, "verdict": verdict})

    return [decide(result) for result in results]


def find_disagreements(pairs: Sequence[Comparison], observations: Sequence[Observation]) -> list[Disagreement]:
    """Return the pairs on which the judge and people prefer different responses, by the judge's certainty."""
    found = [
        Disagreement(
            id=pair.id,
            prompt=pair.prompt.text,
            responses=pair.responses,
            certainty=max(x.first, 1 - x.first),
            human=x.gold,
        )
        for pair, x in zip(pairs, observations, strict=True)
        if x.decided and x.correct == 0 and x.first is not None and x.gold is not None
    ]
    return nlargest(DISAGREEMENTS, found, key=lambda x: x.certainty)


def _add_bias(result: ProbeResult, bias: Bias | None, reason: str) -> ProbeResult:
    return result.model_copy(update={"reason": reason} if bias is None else {"effect": bias.effect, "p": bias.p})


def _average_by(effects: Iterable[Effect], name: Callable[[Effect], str | None]) -> dict[str, Estimate]:
    groups: dict[str, list[Effect]] = {}
    for effect in effects:
        if (group := name(effect)) is not None:
            groups.setdefault(group, []).append(effect)
    means = {
        group: estimate_mean([x.value for x in members], [x.pair.prompt.text for x in members])
        for group, members in groups.items()
    }
    return {group: mean for group, mean in means.items() if mean is not None}


def _find_win_rate(orders: Orders) -> float | None:
    forward, swapped = (None if x.probabilities is None else x.probabilities[0] for x in orders)
    return win_rate(forward, swapped)


def _read_firsts(orders: Orders) -> tuple[float, float] | None:
    """Return the probability of the first position in each order; None if one could not be read."""
    ballots = _read_ballots(orders[0])
    if ballots is not None:
        return ballots
    if orders[0].probabilities is None or orders[1].probabilities is None:
        return None
    return orders[0].probabilities[0], orders[1].probabilities[0]


def _read_ballots(label: Preference) -> tuple[float, float] | None:
    """Return how likely the response shown first is the better one, in each ballot of a label that averages both
    orders."""
    firsts = [pair[0] for pair in label.evidence.shown if pair is not None]
    return (firsts[0], firsts[1]) if len(firsts) == 2 else None
