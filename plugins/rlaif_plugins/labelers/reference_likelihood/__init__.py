"""The labeler `reference-likelihood`, which compares how likely responses make the reference."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import Comparison, Component, DType, LabelerConfig, ModelLoad, ModelName, hookimpl


class ReferenceLikelihoodConfig(LabelerConfig):
    """Prefer the response after which a language model gives the reference the higher log-likelihood per token.

    It measures how much of the reference a response contains (the recall of BARTScore, Yuan et al. 2021). The prompt is
    not read, so it is much faster than `likelihood`.
    """

    scores_responses: ClassVar[bool] = True

    kind: Literal["reference-likelihood"] = "reference-likelihood"
    model: ModelName
    """The language model, in the same forms as `policy.model`."""
    revision: str | None = None
    """Git revision of a hub model."""
    trust_remote_code: bool = False
    """Run the Python code in the model's folder or repository. It can do everything that you can, so read it first."""
    dtype: DType = "auto"
    """Compute precision. `auto` is bf16 if the processor supports it natively, else fp32."""
    connection: str = "In other words:"
    """Text between the response and the reference."""
    scale: float = Field(0.1, gt=0)
    """Scale of the logits: this difference in log-likelihood per token gives odds of e to 1."""

    def missing_field(self, comparison: Comparison) -> str | None:
        """Require a reference."""
        return None if comparison.prompt.reference else "has a prompt without a reference"

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the model."""
        dtype: Literal["fp32", "policy"] = "fp32" if self.dtype == "fp32" else "policy"
        return [ModelLoad(self.model, "likelihood", dtype=dtype, trust_remote_code=self.trust_remote_code)]


@hookimpl
def rlaif_labelers() -> Iterable[Component]:
    """Offer `reference-likelihood`."""
    target = "rlaif_plugins.labelers.reference_likelihood.labeler:ReferenceLikelihoodLabeler"
    yield Component("reference-likelihood", ReferenceLikelihoodConfig, target)
