"""The labeler `rouge`, a judge that needs no model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import (
    Comparison,
    Component,
    Context,
    DataError,
    Evidence,
    LabelerConfig,
    Preference,
    Prompt,
    hookimpl,
)


class RougeConfig(LabelerConfig):
    """Prefer the response with the higher ROUGE F1 against the prompt's reference."""

    scores_responses: ClassVar[bool] = True

    kind: Literal["rouge"] = "rouge"
    metric: Literal["rouge1", "rouge2", "rougeL"] = "rougeL"
    """ROUGE variant: unigrams, bigrams, or the longest common subsequence."""
    scale: float = Field(0.05, gt=0)
    """Scale of the logits: this difference in F1 gives odds of e to 1."""

    def missing_field(self, comparison: Comparison) -> str | None:
        """Require a reference."""
        return None if comparison.prompt.reference else "has a prompt without a reference"


class RougeLabeler:
    """Scores each response independently, so it has no position bias."""

    def __init__(self, config: RougeConfig, context: Context) -> None:
        from rouge_score.rouge_scorer import RougeScorer

        self.config = config
        self.scorer = RougeScorer([config.metric], use_stemmer=True)

    def label(self, comparisons: Sequence[Comparison]) -> Iterator[Preference]:
        """Label comparisons by the overlap with the reference.

        Raises:
            DataError: A prompt has no reference.
        """
        from scipy.special import expit

        for comparison in comparisons:
            a, b = self.score([comparison.prompt] * 2, comparison.responses)
            first = float(expit((a - b) / self.config.scale))
            yield Preference(comparison.id, (first, 1.0 - first), Evidence("rouge", scores=(a, b)))

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Sequence[float]:
        """Return the F1 of responses, in [0, 1].

        Raises:
            DataError: A prompt has no reference.
        """
        return [self._score(prompt, text) for prompt, text in zip(prompts, responses, strict=True)]

    def _score(self, prompt: Prompt, text: str) -> float:
        if not prompt.reference:
            raise DataError(f"labeler 'rouge': prompt '{prompt.id}' has no reference")
        return float(self.scorer.score(prompt.reference, text)[self.config.metric].fmeasure)


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `rouge`."""
    yield Component("rouge", RougeConfig, "rlaif_plugins.labelers.rouge:RougeLabeler")
