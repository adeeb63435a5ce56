"""REINFORCE with a baseline, the paper's algorithm (RLAIF F, v2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field, model_validator

from rlaif_framework import Component, ComponentConfig, ModelLoad, hookimpl


class ReinforceConfig(ComponentConfig):
    """Policy gradient against a baseline, maximising (1 - beta) r - beta KL."""

    kind: Literal["reinforce"] = "reinforce"
    steps: int = Field(1000, ge=1)
    """Optimiser steps."""
    prompts_per_step: int = Field(8, ge=1)
    """Prompts drawn for each step, over all processes."""
    responses_per_prompt: int = Field(1, ge=1)
    """Responses sampled to each prompt; prompts times responses is the paper's batch (128)."""
    lr: float = Field(1e-5, gt=0)
    """Learning rate of the policy (RLAIF: 1e-5)."""
    baseline: Literal["value", "leave-one-out"] = "value"
    """What a response's reward is compared with: a value model trained beside the policy (the paper), or the mean
    reward of the other responses to the same prompt (Ahmadian et al. 2024), which costs no second model."""
    value_lr: float | None = Field(None, gt=0)
    """Learning rate of the value model; default: the policy's."""
    value_from: Literal["sft", "reward"] = "sft"
    """What the value model starts from: the supervised baseline (the paper), or the reward model."""
    beta: float = Field(0.05, ge=0, le=1)
    """Weight of the KL term against the reward (RLAIF: 0.05). What it means depends on the reward's scale, which the
    paper does not fix; see `scale_rewards`."""
    scale_rewards: bool = False
    """Divide rewards by their standard deviation over the first step's responses. Then `beta` weighs the KL term
    against a reward of unit spread, whatever scale the reward model has."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature (RLAIF: 0.9); log-probabilities are taken at the same temperature."""
    missing_eos_penalty: float = Field(0.0, ge=0)
    """Taken off the (scaled) reward of a response that has no end token within the length limit."""

    @model_validator(mode="after")
    def _check_baseline(self) -> ReinforceConfig:
        if self.baseline == "leave-one-out" and self.responses_per_prompt < 2:
            raise ValueError("baseline: leave-one-out needs responses_per_prompt of 2 or more")
        return self

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """Policy and value model; the KL reference is the policy without its adapters, or a copy if there are none."""
        loads = [ModelLoad(policy, "policy", trained=True)]
        return loads + [ModelLoad(policy, "value model", trained=True)] * (self.baseline == "value")


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `reinforce`."""
    yield Component("reinforce", ReinforceConfig, "rlaif_plugins.reinforce.algorithm:Reinforce")
