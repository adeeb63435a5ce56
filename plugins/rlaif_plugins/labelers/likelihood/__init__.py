"""The labeler `likelihood`, which compares log-likelihoods under a language model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from rlaif_framework import Component, DType, LabelerConfig, ModelLoad, ModelName, hookimpl


class LikelihoodConfig(LabelerConfig):
    """Prefer the response with the higher log-likelihood per token, or the higher contrast between two instructions."""

    scores_responses: ClassVar[bool] = True

    kind: Literal["likelihood"] = "likelihood"
    model: ModelName
    """The language model, in the same forms as `policy.model`."""
    revision: str | None = None
    """Git revision of a hub model."""
    trust_remote_code: bool = False
    """Run the Python code in the model's folder or repository. It can do everything that you can, so read it first."""
    dtype: DType = "auto"
    """Compute precision. `auto` is bf16 if the processor supports it natively, else fp32."""
    instruction: str = ""
    """Text before the prompt, such as `Write an accurate summary.`"""
    against: str | None = None
    """A second instruction, such as `Write a misleading summary.` The score of a response is then its log-likelihood
    under `instruction` minus that under this one (after Yang et al. 2023, RLCD)."""
    scale: float = Field(0.1, gt=0)
    """Scale of the logits: this difference in log-likelihood per token gives odds of e to 1."""

    @model_validator(mode="after")
    def _check_contrast(self) -> LikelihoodConfig:
        if self.against is not None and self.against == self.instruction:
            raise ValueError("'instruction' and 'against' are the same, so all scores would be 0")
        return self

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the model."""
        dtype: Literal["fp32", "policy"] = "fp32" if self.dtype == "fp32" else "policy"
        return [ModelLoad(self.model, "likelihood", dtype=dtype, trust_remote_code=self.trust_remote_code)]


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `likelihood`."""
    yield Component("likelihood", LikelihoodConfig, "rlaif_plugins.labelers.likelihood.labeler:LikelihoodLabeler")
