"""Labelers and a metric of sentiment, by two lexicons that were made independently of each other."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence

from textblob.en import sentiment
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from rlaif_example import PatternConfig, PositiveConfig, VaderConfig
from rlaif_framework import Comparison, Context, Evidence, Preference, Prompt


class SentimentLabeler(ABC):
    """Scores each response alone, so it has no position bias, and reward `direct` can use it."""

    def __init__(self, config: VaderConfig | PatternConfig, context: Context) -> None:
        self.config = config

    @abstractmethod
    def rate(self, text: str) -> float:
        """Return how positive a text is, in [-1, 1]."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Return how positive the responses are. The beginnings do not count: the policy did not write them."""
        return [self.rate(text) for text in responses]

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by the difference of the scores; equal scores are a tie."""
        for comparison in comparisons:
            a, b = (self.rate(text) for text in comparison.responses)
            # Scores are in [-1, 1] and the scale is at least 0.01, so the exponent cannot overflow.
            first = 1.0 / (1.0 + math.exp((b - a) / self.config.scale))
            yield Preference(comparison.id, (first, 1.0 - first), Evidence(self.config.kind, scores=(a, b)))


class VaderLabeler(SentimentLabeler):
    """A lexicon of 7,500 words with rules for negation, degree and emphasis."""

    def __init__(self, config: VaderConfig, context: Context) -> None:
        super().__init__(config, context)
        self.analyzer = SentimentIntensityAnalyzer()

    def rate(self, text: str) -> float:
        """Return the compound score: the sum of the words' scores, normalised."""
        return float(self.analyzer.polarity_scores(text)["compound"])


class PatternLabeler(SentimentLabeler):
    """A lexicon of 2,900 senses of adjectives that are frequent in reviews, with rules for negation and degree."""

    def rate(self, text: str) -> float:
        """Return the mean polarity of the words that are in the lexicon; 0 if none is."""
        return float(sentiment(text)[0])


class Positive:
    """Counts what the lexicon of Pattern finds positive, however slightly."""

    def __init__(self, config: PositiveConfig, context: Context) -> None: ...

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Return 1 for each positive response and 0 for the others; the mean is the share of positive ones."""
        return {"positive": [float(sentiment(text)[0] > 0) for text in responses]}
