"""Best-of-n: the baselines every RL result should be compared with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import AlgorithmConfig, Component, ModelLoad, SftConfig, hookimpl
from rlaif_framework.rl import MissingEosConfig


class BestOfNConfig(MissingEosConfig, AlgorithmConfig):
    """No training: of n responses to a test prompt, the one with the highest reward is the answer."""

    kind: Literal["best-of-n"] = "best-of-n"
    responds: ClassVar[bool] = True
    n: int = Field(16, ge=2)
    """Responses to choose among. The KL divergence from the initial policy is log n - (n - 1) / n at most."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The policy, to be saved as it is."""
        return [ModelLoad(policy, "policy")]


class RejectionSamplingConfig(MissingEosConfig, AlgorithmConfig):
    """Fine-tune on the best of n of the policy's own responses to training prompts (RAFT, Dong et al. 2023)."""

    kind: Literal["rejection-sampling"] = "rejection-sampling"
    n: int = Field(16, ge=2)
    """Responses to choose among for each prompt."""
    prompts: int | None = Field(None, ge=1)
    """Use at most so many training prompts, chosen at random with the seed."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature."""
    sft: SftConfig = SftConfig()
    """How to fine-tune on the chosen responses."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The policy."""
        sft = self.sft
        return [ModelLoad(policy, "policy", trained=True, groups=sft.batch_size, optimizer=sft.optimizer)]


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `best-of-n` and `rejection-sampling`."""
    yield Component("best-of-n", BestOfNConfig, "rlaif_plugins.algorithms.best_of_n.algorithm:BestOfN")
    yield Component(
        "rejection-sampling", RejectionSamplingConfig, "rlaif_plugins.algorithms.best_of_n.algorithm:RejectionSampling"
    )
