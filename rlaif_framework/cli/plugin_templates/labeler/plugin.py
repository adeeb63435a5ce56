"""The labeler `acme/concise`: prefers the response that repeats itself less and is shorter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field
from rlaif_framework import Comparison, Component, Context, Evidence, LabelerConfig, Preference, Prompt, hookimpl


class ConciseConfig(LabelerConfig):
    """Prefer the response that says more different words in fewer words."""

    scores_responses: ClassVar[bool] = True  # so that reward `direct` can use it

    kind: Literal["acme/concise"] = "acme/concise"
    length_weight: float = Field(0.02, ge=0)
    """Weight of the number of words against the share of different words."""
    scale: float = Field(0.1, ge=0.001)
    """Scale of the logits: this difference in score gives odds of e to 1."""


class ConciseLabeler:
    """Scores each response alone, so it has no position bias."""

    def __init__(self, config: ConciseConfig, context: Context) -> None:
        self.config = config

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Yield a preference for each comparison, in their order."""
        for comparison in comparisons:
            a, b = self.score([comparison.prompt] * 2, comparison.responses)
            first = 0.5 * (1 + math.tanh((a - b) / (2 * self.config.scale)))  # the logistic function
            yield Preference(comparison.id, (first, 1 - first), Evidence(self.config.kind, scores=(a, b)))

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Return the share of different words, minus a penalty on their number."""
        found = []
        for text in responses:
            words = text.lower().split()
            share = len(set(words)) / len(words) if words else 0.0
            found.append(share - self.config.length_weight * len(words))
        return found


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `acme/concise`."""
    yield Component("acme/concise", ConciseConfig, "rlaif_acme:ConciseLabeler")
