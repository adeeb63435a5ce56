"""Online DPO: pairs are sampled from the current policy and labelled at once (OAIF, Guo et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from pydantic import Field, model_validator

from rlaif_framework import Component, LabelerSlot, hookimpl
from rlaif_framework.rl import OnlineConfig


class OnlineDpoConfig(OnlineConfig):
    """DPO on pairs sampled from the current policy, labelled by a labeler or by the arm's reward."""

    kind: Literal["online-dpo"] = "online-dpo"
    labeler: LabelerSlot | None = None
    """Labeler of the pairs. Without one, p = sigmoid(r1 - r2) with the arm's reward (Bradley-Terry)."""
    labels: Literal["soft", "hard"] = "hard"
    """Train on probabilities, or on the preferred response alone (Guo et al. 2024)."""
    allow_weak_labels: bool = False
    """If True, train even if the labeler's mean probability mass on the label tokens is below 0.01. The labels are then
    read from tokens that the model would almost never write, so by default the run stops."""
    responses_per_prompt: int = Field(2, ge=2)
    """Responses sampled to each prompt; the first is compared with the second, the third with the fourth, ..."""

    @model_validator(mode="after")
    def _check_pairs(self) -> OnlineDpoConfig:
        if self.responses_per_prompt % 2:
            raise ValueError("responses_per_prompt: responses are compared in pairs; use an even number")
        if self.labeler is not None and (self.missing_eos_penalty or self.missing_eos_reward is not None):
            raise ValueError(
                "missing_eos_penalty and missing_eos_reward apply to rewards, and a labeler has none; remove them"
            )
        return self

    @property
    def needs_reward(self) -> bool:
        """True without a labeler."""
        return self.labeler is None


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `online-dpo`."""
    yield Component("online-dpo", OnlineDpoConfig, "rlaif_plugins.algorithms.online_dpo.algorithm:OnlineDpo")
