"""Positive continuations of reviews, the first task of RLHF on text (Ziegler et al. 2019): settings and registration.

Every `rlaif` command imports this module, so it imports nothing heavy. The classes are in the modules of the targets.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import (
    Component,
    LabelerConfig,
    MetricConfig,
    MetricSlots,
    SpecPath,
    TaskConfig,
    default_components,
    hookimpl,
)


class ReviewsConfig(TaskConfig):
    """Continue the beginning of a review."""

    kind: Literal["example/reviews"] = "example/reviews"
    data: SpecPath | None = None
    """A JSON Lines file with the columns of `reviews.jsonl`, which is the default."""
    instruction: str = "Continue this review. Write only the continuation."
    """First line of the user's message to a policy with a chat template. Others continue the text itself."""
    metrics: MetricSlots = default_components("words", "example/positive", "example/distinct-words")
    """Metrics of responses, which are logged in training and reported in the evaluation."""


class VaderConfig(LabelerConfig):
    """Prefer the response that VADER finds more positive (Hutto and Gilbert 2014)."""

    scores_responses: ClassVar[bool] = True

    kind: Literal["example/vader"] = "example/vader"
    scale: float = Field(0.2, ge=0.01)
    """Scale of the logits: this difference of the scores, which are in [-1, 1], gives odds of e to 1."""


class PatternConfig(LabelerConfig):
    """Prefer the response that the lexicon of Pattern finds more positive (De Smedt and Daelemans 2012)."""

    scores_responses: ClassVar[bool] = True

    kind: Literal["example/pattern"] = "example/pattern"
    scale: float = Field(0.1, ge=0.01)
    """Scale of the logits: this difference of the scores, which are in [-1, 1], gives odds of e to 1."""


class PositiveConfig(MetricConfig):
    """Measure whether a response is positive, by the lexicon of Pattern."""

    kind: Literal["example/positive"] = "example/positive"


class DistinctWordsConfig(MetricConfig):
    """Measure the fraction of a response's words that are new; it is low if a policy repeats words of praise."""

    kind: Literal["example/distinct-words"] = "example/distinct-words"


@hookimpl
def rlaif_tasks() -> Iterable[Component]:
    """Offer `example/reviews`."""
    yield Component("example/reviews", ReviewsConfig, "rlaif_example.reviews:ReviewsTask")


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `example/vader` and `example/pattern`."""
    yield Component("example/vader", VaderConfig, "rlaif_example.sentiment:VaderLabeler")
    yield Component("example/pattern", PatternConfig, "rlaif_example.sentiment:PatternLabeler")


@hookimpl
def rlaif_metrics() -> Iterable[Component]:
    """Offer `example/positive` and `example/distinct-words`."""
    yield Component("example/positive", PositiveConfig, "rlaif_example.sentiment:Positive")
    yield Component("example/distinct-words", DistinctWordsConfig, "rlaif_example.words:DistinctWords")
