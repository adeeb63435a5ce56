"""Best-of-n and rejection sampling, the baselines of reinforcement learning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import AlgorithmConfig, Component, ModelLoad, SftConfig, hookimpl
from rlaif_framework.rl import MissingEosConfig


class BestOfNConfig(MissingEosConfig, AlgorithmConfig):
    """No training: sample n responses to each test prompt and answer with the one of highest reward."""

    kind: Literal["best-of-n"] = "best-of-n"
    responds: ClassVar[bool] = True
    n: int = Field(16, ge=2)
    """Responses to select from. The KL divergence from the initial policy is at most log n - (n - 1) / n."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature."""

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """Those of training and sampling: the policy is saved unchanged."""
        return frozenset({"lora", "train_tokens", "max_new_tokens", "batch_tokens"})

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the policy, which is saved unchanged."""
        return [ModelLoad(policy, "policy")]


class RejectionSamplingConfig(MissingEosConfig, AlgorithmConfig):
    """Fine-tune the policy on the best of n of its own responses to training prompts (RAFT, Dong et al. 2023)."""

    kind: Literal["rejection-sampling"] = "rejection-sampling"
    n: int = Field(16, ge=2)
    """Responses to select from for each prompt."""
    prompts: int | None = Field(None, ge=1)
    """Maximum number of training prompts, drawn at random with the seed."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature."""
    sft: SftConfig = SftConfig()
    """Settings of the fine-tuning on the selected responses."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the policy."""
        sft = self.sft
        return [ModelLoad(policy, "policy", trained=True, groups=sft.batch_size, optimizer=sft.optimizer)]


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `best-of-n` and `rejection-sampling`."""
    yield Component("best-of-n", BestOfNConfig, "rlaif_plugins.algorithms.best_of_n.algorithm:BestOfN")
    yield Component(
        "rejection-sampling", RejectionSamplingConfig, "rlaif_plugins.algorithms.best_of_n.algorithm:RejectionSampling"
    )
