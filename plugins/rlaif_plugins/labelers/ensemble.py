"""The labeler `ensemble`, which combines the preferences of several labelers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Annotated, Literal

from pydantic import Field, model_validator

from rlaif_framework import (
    Comparison,
    Component,
    Context,
    Evidence,
    LabelerConfig,
    LabelerSlot,
    Preference,
    Vote,
    hookimpl,
)

Probabilities = tuple[float, float] | None


class EnsembleConfig(LabelerConfig):
    """Combine several labelers by their weighted mean or majority vote."""

    kind: Literal["ensemble"] = "ensemble"
    labelers: Annotated[
        dict[str, LabelerSlot], Field(min_length=1, examples=[{"similarity": "similarity", "rouge": "rouge"}])
    ]
    """Members of the ensemble, by name."""
    weights: dict[str, Annotated[float, Field(ge=0)]] = Field({})
    """Weights of members, by name; the default is 1."""
    how: Literal["mean", "majority"] = "mean"
    """Combination of the members: the weighted mean of their probabilities, or a weighted majority vote, in which a tie
    is half a vote for each response."""

    @model_validator(mode="after")
    def _check_weights(self) -> EnsembleConfig:
        for name in self.weights:
            if name not in self.labelers:
                raise ValueError(f"weights.{name}: no member has this name; the members are {', '.join(self.labelers)}")
        if sum(self.weights.get(name, 1.0) for name in self.labelers) == 0:
            raise ValueError("weights: the weights of all members are 0")
        return self


class EnsembleLabeler:
    """Labels with all members, combines their preferences, and keeps each in the evidence."""

    def __init__(self, config: EnsembleConfig, context: Context) -> None:
        self.config = config
        self.members = {name: context.build_labeler(member) for name, member in config.labelers.items()}

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons. If no member with a positive weight has a preference, there is none."""
        # Each member labels all comparisons at once, which backends need for batching.
        found = {name: list(member.label(comparisons)) for name, member in self.members.items()}
        for index, comparison in enumerate(comparisons):
            own = {name: preferences[index] for name, preferences in found.items()}
            evidence = Evidence(
                self.config.kind,
                prompt_tokens=sum(p.evidence.prompt_tokens for p in own.values()),
                generated_tokens=sum(p.evidence.generated_tokens for p in own.values()),
                cost=sum(p.evidence.cost for p in own.values()),
                unanswered=sum(p.evidence.unanswered for p in own.values()),
                dropped=tuple(sorted({name for p in own.values() for name in p.evidence.dropped})),
                read_from=tuple(sorted({name for p in own.values() for name in p.evidence.read_from})),
                members=tuple(Vote(name, p.probabilities, self._mass(name, p)) for name, p in own.items()),
                source_truncated=any(p.evidence.source_truncated for p in own.values()),
                responses_truncated=max(p.evidence.responses_truncated for p in own.values()),
                inconsistent=any(p.evidence.inconsistent for p in own.values()),
            )
            combined = self.combine({n: p.probabilities for n, p in own.items()})
            if combined is None:  # a refusal is reported only if it left the comparison without a label
                refused = (p.evidence.refused for p in own.values() if p.evidence.refused is not None)
                evidence = replace(evidence, refused=next(refused, None))
            yield Preference(comparison.id, combined, evidence)

    def combine(self, members: Mapping[str, Probabilities]) -> Probabilities:
        """Combine the members' preferences, without members that have none; None if no weight remains."""
        weights = {name: self.config.weights.get(name, 1.0) for name, p in members.items() if p is not None}
        total = sum(weights.values())
        if total == 0:
            return None
        first = sum(weight * self._vote(members[name]) for name, weight in weights.items()) / total
        if self.config.how == "majority":
            first = 0.5 if first == 0.5 else float(first > 0.5)
        return first, 1.0 - first

    def _mass(self, name: str, preference: Preference) -> float | None:
        masses = preference.evidence.masses
        return fmean(masses) if masses and self.config.weights.get(name, 1.0) else None

    def _vote(self, probabilities: Probabilities) -> float:
        assert probabilities is not None  # members without a preference have no weight
        first = probabilities[0]
        if self.config.how == "mean" or first == 0.5:
            return first
        return float(first > 0.5)


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `ensemble`."""
    yield Component("ensemble", EnsembleConfig, "rlaif_plugins.labelers.ensemble:EnsembleLabeler")
