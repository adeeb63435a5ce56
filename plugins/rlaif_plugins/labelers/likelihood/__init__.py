"""The likelihood labeler: which response a language model would rather have written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field, model_validator

from rlaif_framework import Component, DType, LabelerConfig, ModelLoad, hookimpl


class LikelihoodConfig(LabelerConfig):
    """Prefer the response with the higher log-likelihood per token, or with the higher contrast of two instructions."""

    kind: Literal["likelihood"] = "likelihood"
    model: str
    """As `policy.model`."""
    revision: str | None = None
    """Git revision of a hub model."""
    dtype: DType = "auto"
    """Compute precision: bf16 where the processor has it (auto)."""
    instruction: str = ""
    """Put before the prompt, such as `Write an accurate summary.`"""
    against: str | None = None
    """A second instruction, such as `Write a misleading summary.`: a response's score is then its log-likelihood under
    `instruction` less that under this one (after Yang et al. 2023, RLCD)."""
    scale: float = Field(0.1, gt=0)
    """Difference in log-likelihood per token that makes the odds e to 1."""

    @model_validator(mode="after")
    def _check_contrast(self) -> LikelihoodConfig:
        if self.against is not None and self.against == self.instruction:
            raise ValueError("'instruction' and 'against' are the same: nothing would differ")
        return self

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The model."""
        return [ModelLoad(self.model, "likelihood", dtype="fp32" if self.dtype == "fp32" else "policy")]


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `likelihood`."""
    yield Component("likelihood", LikelihoodConfig, "rlaif_plugins.labelers.likelihood.labeler:LikelihoodLabeler")
