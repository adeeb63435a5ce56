"""Labels for people to read, such as those that a labeler is least sure of."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import nsmallest

from pydantic import BaseModel, ConfigDict

from rlaif_framework.records.preferences import Labelled

Probabilities = tuple[float, float] | None
"""Probabilities of the two responses; None if there is no label."""


class LabelExample(BaseModel):
    """A label that a report shows as an example."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str
    responses: tuple[str, str]
    probabilities: Probabilities
    human: float | None
    """Probability that the first response is the better one, by the gold preference."""
    votes: dict[str, Probabilities]
    """Probabilities of each member of an ensemble."""
    principle: str | None
    rationales: list[list[str]]
    """For the original and the swapped order, the texts that the model generated before its answer."""

    @classmethod
    def read(cls, labelled: Labelled) -> LabelExample:
        """Convert a comparison with its label."""
        comparison, preference = labelled
        evidence = preference.evidence
        return cls(
            id=comparison.id,
            prompt=comparison.prompt.text,
            responses=comparison.responses,
            probabilities=preference.probabilities,
            human=comparison.preference,
            votes={vote.labeler: vote.probabilities for vote in evidence.members},
            principle=next((ballot.principle for ballot in evidence.orders if ballot.principle), None),
            rationales=evidence.rationales,
        )


def find_uncertain(labels: Iterable[Labelled], count: int) -> list[LabelExample]:
    """Return the soft labels closest to one half, the most uncertain one first. Only these are kept in memory."""
    # A probability of 0 or 1 is a hard label.
    soft = ((abs(p[0] - 0.5), labelled) for labelled in labels if (p := labelled[1].probabilities) and min(p) > 0)
    return [LabelExample.read(labelled) for _, labelled in nsmallest(count, soft, key=lambda found: found[0])]
