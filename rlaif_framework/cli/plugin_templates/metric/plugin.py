"""The metric `acme/new-words`: the share of words in a response that its prompt does not have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field
from rlaif_framework import Component, Context, MetricConfig, Prompt, hookimpl


class NewWordsConfig(MetricConfig):
    """Measure the share of words that are not in the prompt's source, and how many of them the reference has."""

    kind: Literal["acme/new-words"] = "acme/new-words"
    min_letters: int = Field(4, ge=1)
    """Minimum length of the words that count."""

    @property
    def names(self) -> Sequence[str]:
        """Names of the two numbers in reports."""
        return ["new_words", "new_words_in_reference"]


class NewWords:
    """Measures each response alone."""

    def __init__(self, config: NewWordsConfig, context: Context) -> None:
        self.config = config

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Return a number for each response by name; None where it does not apply."""
        shares: list[float | None] = []
        hits: list[float | None] = []
        for prompt, text in zip(prompts, responses, strict=True):
            words = self._find(text)
            new = words - self._find(prompt.source)
            shares.append(len(new) / len(words) if words else None)
            known = None if prompt.reference is None else self._find(prompt.reference)
            hits.append(len(new & known) / len(new) if new and known is not None else None)
        return {"new_words": shares, "new_words_in_reference": hits}

    def _find(self, text: str) -> set[str]:
        words = (word.strip(".,;:!?\"'()") for word in text.lower().split())
        return {word for word in words if len(word) >= self.config.min_letters}


@hookimpl
def rlaif_metrics() -> Iterable[Component]:
    """Offer `acme/new-words`."""
    yield Component("acme/new-words", NewWordsConfig, "rlaif_acme:NewWords")
