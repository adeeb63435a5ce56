"""A labeler that prefers the response with more of the source's keywords."""

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
    """Prefer the response that contains more of the source's most frequent content words."""

    kind: Literal["example/keywords"] = "example/keywords"
    keywords: int = Field(10, ge=1, le=100)
    """Number of keywords: the most frequent content words of the source."""
    min_letters: int = Field(5, ge=1)
    """Minimum length of a content word."""
    scale: float = Field(0.1, ge=0.01)
    """Scale of the logits: this difference in the share of keywords gives odds of e to 1."""


class KeywordsLabeler:
    """Scores each response separately, so it has no position bias."""

    def __init__(self, config: KeywordsConfig, context: Context) -> None:
        self.config = config

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by the share of keywords in the responses; equal shares are a tie."""
        for comparison in comparisons:
            keywords = self.find_keywords(comparison.prompt.source)
            a, b = (keyword_share(keywords, text) for text in comparison.responses)
            # Shares are in [0, 1], so the exponent is at most 100 and cannot overflow.
            first = 1.0 / (1.0 + math.exp((b - a) / self.config.scale))
            yield Preference(comparison.id, (first, 1.0 - first), Evidence(self.config.kind, scores=(a, b)))

    def find_keywords(self, source: str) -> set[str]:
        """Return the most frequent content words of the source; among equally frequent ones, the first."""
        words = [word for word in WORD.findall(source.lower()) if len(word) >= self.config.min_letters]
        return {word for word, _ in Counter(words).most_common(self.config.keywords)}


def keyword_share(keywords: set[str], response: str) -> float:
    """Return the share of the keywords that a response contains, in [0, 1]; 0 if there are none."""
    # The denominator does not depend on the response, so a longer response is not penalised.
    return len(keywords.intersection(WORD.findall(response.lower()))) / max(1, len(keywords))


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `example/keywords`."""
    yield Component("example/keywords", KeywordsConfig, "rlaif_example:KeywordsLabeler")
