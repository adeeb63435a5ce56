"""The labeler `length`, a baseline for labelers and judges (Singhal et al. 2023)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Literal

from rlaif_framework import Comparison, Component, Context, Evidence, LabelerConfig, Preference, Prompt, hookimpl


class LengthConfig(LabelerConfig):
    """Prefer the longer response, or the shorter one: a baseline for other labelers."""

    scores_responses: ClassVar[bool] = True

    kind: Literal["length"] = "length"
    prefer: Literal["longer", "shorter"] = "longer"
    """The response to prefer."""


class LengthLabeler:
    """Prefers by the number of characters, with certainty."""

    def __init__(self, config: LengthConfig, context: Context) -> None:
        self.sign = 1.0 if config.prefer == "longer" else -1.0

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by length; equal lengths are a tie."""
        for comparison in comparisons:
            a, b = self.score([comparison.prompt] * 2, comparison.responses)
            first = 0.5 if a == b else float(a > b)
            yield Preference(comparison.id, (first, 1.0 - first), Evidence("length", scores=(a, b)))

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Return the lengths of responses in characters, negative if shorter ones are preferred."""
        return [self.sign * len(text) for text in responses]


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `length`."""
    yield Component("length", LengthConfig, "rlaif_plugins.labelers.length:LengthLabeler")
