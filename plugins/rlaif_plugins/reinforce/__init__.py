"""REINFORCE with a learned value baseline, the paper's algorithm (RLAIF F, v2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from rlaif_framework import Component, ComponentConfig, ModelLoad, hookimpl


class ReinforceConfig(ComponentConfig):
    """Policy gradient against a learned baseline, maximising (1 - beta) r - beta KL."""

    kind: Literal["reinforce"] = "reinforce"
    steps: int = Field(1000, ge=1)
    """Optimiser steps."""
    prompts_per_step: int = Field(8, ge=1)
    """Prompts drawn for each step, over all processes."""
    responses_per_prompt: int = Field(1, ge=1)
    """Responses sampled to each prompt; prompts times responses is the paper's batch (128)."""
    lr: float = Field(1e-5, gt=0)
    """Learning rate of the policy (RLAIF: 1e-5)."""
    value_lr: float | None = Field(None, gt=0)
    """Learning rate of the value model; default: the policy's."""
    value_from: Literal["sft", "reward"] = "sft"
    """What the value model starts from: the supervised baseline (the paper), or the reward model."""
    beta: float = Field(0.05, ge=0, le=1)
    """Weight of the KL term against the reward (RLAIF: 0.05). What it means depends on the reward's scale, which the
    paper does not fix: with rewards that differ by tenths, 0.05 all but forbids the policy to move."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature (RLAIF: 0.9); log-probabilities are taken at the same temperature."""
    missing_eos_penalty: float = Field(0.0, ge=0)
    """Taken off the reward of a response that has no end token within the length limit."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """Policy and value model; the KL reference is the policy without its adapters, or a copy if there are none."""
        return [ModelLoad(policy, "policy", trained=True), ModelLoad(policy, "value model", trained=True)]


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `reinforce`."""
    yield Component("reinforce", ReinforceConfig, "rlaif_plugins.reinforce.algorithm:Reinforce")
