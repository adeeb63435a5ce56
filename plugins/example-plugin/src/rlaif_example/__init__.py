"""A labeler that prefers the response naming more of the source's keywords."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

from pydantic import Field

from rlaif_framework import Comparison, Component, Context, Evidence, LabelerConfig, Preference, hookimpl

WORD = re.compile(r"[^\W\d_]+")


class KeywordsConfig(LabelerConfig):
    """Prefer the response that names more of the source's most frequent content words."""

    kind: Literal["example/keywords"] = "example/keywords"
    keywords: int = Field(10, ge=1, le=100)
    """How many of the source's content words count, the most frequent first."""
    min_letters: int = Field(5, ge=1)
    """Shorter words are no content words."""
    scale: float = Field(0.1, ge=0.01)
    """Difference in the share of keywords named that makes the odds e to 1."""


class KeywordsLabeler:
    """Scores each response alone, so the order they are shown in cannot matter."""

    def __init__(self, config: KeywordsConfig, context: Context) -> None:
        self.config = config

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Prefer by the share of keywords named; equal shares are a tie."""
        for comparison in comparisons:
            keywords = self.find_keywords(comparison.prompt.source)
            a, b = (name_share(keywords, text) for text in comparison.responses)
            first = 1.0 / (1.0 + math.exp((b - a) / self.config.scale))
            yield Preference(comparison.id, (first, 1.0 - first), Evidence(self.config.kind, scores=(a, b)))

    def find_keywords(self, source: str) -> set[str]:
        """The source's most frequent content words, among equals those that come first."""
        words = [word for word in WORD.findall(source.lower()) if len(word) >= self.config.min_letters]
        return {word for word, _ in Counter(words).most_common(self.config.keywords)}


def name_share(keywords: set[str], response: str) -> float:
    """Share of the keywords that a response names, in [0, 1]; 0 if there are none."""
    return len(keywords.intersection(WORD.findall(response.lower()))) / max(1, len(keywords))


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `example/keywords`."""
    yield Component("example/keywords", KeywordsConfig, "rlaif_example:KeywordsLabeler")
