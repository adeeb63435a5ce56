"""Positive continuations of reviews, the first task of RLHF on text (Ziegler et al. 2019): settings and registration.

Every `rlaif` command imports this module, so it imports nothing heavy. The classes are in the modules of the targets.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import Component, LabelerConfig, TaskConfig, hookimpl


class ReviewsConfig(TaskConfig):
    """Continue the beginning of a review."""

    kind: Literal["example/reviews"] = "example/reviews"
    data: Path | None = None
    """A JSON Lines file with the columns of `reviews.jsonl`, which is the default."""
    instruction: str = "Continue this review. Write only the continuation."
    """First line of the user's message to a policy with a chat template. Others continue the text itself."""


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


@hookimpl
def rlaif_tasks() -> Iterable[Component]:
    """Offer `example/reviews`."""
    yield Component("example/reviews", ReviewsConfig, "rlaif_example.reviews:ReviewsTask")


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `example/vader` and `example/pattern`."""
    yield Component("example/vader", VaderConfig, "rlaif_example.sentiment:VaderLabeler")
    yield Component("example/pattern", PatternConfig, "rlaif_example.sentiment:PatternLabeler")
