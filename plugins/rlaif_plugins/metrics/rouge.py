"""The metric `rouge`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field

from rlaif_framework import Component, Context, MetricConfig, Prompt, hookimpl

Variant = Literal["rouge1", "rouge2", "rougeL"]


class RougeMetricConfig(MetricConfig):
    """Measure ROUGE F1 of a response against the prompt's reference, if there is one."""

    kind: Literal["rouge"] = "rouge"
    variants: list[Variant] = Field(["rouge1", "rouge2", "rougeL"], min_length=1)
    """ROUGE variants: unigrams, bigrams, and the longest common subsequence."""

    @property
    def names(self) -> Sequence[str]:
        """The variants."""
        return self.variants


class RougeMetric:
    """Compares the stems of words."""

    def __init__(self, config: RougeMetricConfig, context: Context) -> None:
        from rouge_score.rouge_scorer import RougeScorer  # imports nltk

        self.variants = config.variants
        self.scorer = RougeScorer(config.variants, use_stemmer=True)

    def measure(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Mapping[str, Sequence[float | None]]:
        """Return the F1 of each response, in [0, 1]; None without a reference."""
        scores = [
            self.scorer.score(prompt.reference, text) if prompt.reference else None
            for prompt, text in zip(prompts, responses, strict=True)
        ]
        return {name: [score and score[name].fmeasure for score in scores] for name in self.variants}


@hookimpl
def rlaif_metrics() -> Iterable[Component]:
    """Offer `rouge`."""
    yield Component("rouge", RougeMetricConfig, "rlaif_plugins.metrics.rouge:RougeMetric")
