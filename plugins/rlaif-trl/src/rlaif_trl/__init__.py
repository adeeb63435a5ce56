"""TRL's trainers as algorithms and as a reward: settings, with the names they have in TRL, and registration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from rlaif_framework import AlgorithmConfig, Component, ComponentConfig, ModelLoad, RewardConfig, hookimpl
from rlaif_framework.rl import MissingEosConfig


class TrainerConfig(ComponentConfig):
    """Arguments of all trainers. The optimiser is AdamW."""

    learning_rate: float = Field(1e-5, gt=0)
    """Peak learning rate."""
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    """Learning-rate schedule; `constant` has no warm-up."""
    warmup_steps: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""
    per_device_train_batch_size: int = Field(8, ge=1)
    """Responses, or pairs of them, in a forward and backward pass of a process."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Such passes in a step."""

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """The limit of tokens in a pass, which is here one of examples."""
        return frozenset({"train_tokens"})

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the policy and the KL reference."""
        return [ModelLoad(policy, "policy", trained=True), ModelLoad(policy, "KL reference", shared=True)]


class OnlineConfig(TrainerConfig, MissingEosConfig, AlgorithmConfig):
    """Arguments of the trainers that sample responses."""

    max_steps: int = Field(1000, ge=1)
    """Training steps; each samples responses and learns from them."""
    num_generations: int = Field(8, ge=2)
    """Responses to each prompt; the responses of a step must be a multiple of it."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature."""
    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the initial policy."""

    @property
    def responses_per_step(self) -> int:
        """Responses in a step of a process."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @model_validator(mode="after")
    def _check_responses(self) -> Self:
        if self.responses_per_step % self.num_generations:
            raise ValueError(f"num_generations: {self.responses_per_step} responses of a step are no multiple of it")
        return self


class GrpoConfig(OnlineConfig):
    """TRL's GRPOTrainer (Shao et al. 2024)."""

    kind: Literal["trl/grpo"] = "trl/grpo"
    loss_type: Literal["grpo", "dr_grpo", "bnpo", "dapo"] = "dapo"
    """Average of the losses of tokens."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Responses over which rewards are divided by their standard deviation."""


class RlooConfig(OnlineConfig):
    """TRL's RLOOTrainer (Ahmadian et al. 2024)."""

    kind: Literal["trl/rloo"] = "trl/rloo"
    normalize_advantages: bool = False
    """If True, shift and scale the advantages of a step to mean 0 and standard deviation 1."""


class PairsConfig(TrainerConfig):
    """Arguments of the trainers on preferred responses. Ties are left out, and counted."""

    num_train_epochs: float = Field(1.0, gt=0)
    """Passes over the comparisons."""

    needs_preferences: ClassVar[bool] = True


class DpoConfig(PairsConfig, AlgorithmConfig):
    """TRL's DPOTrainer (Rafailov et al. 2023)."""

    needs_reward: ClassVar[bool] = False

    kind: Literal["trl/dpo"] = "trl/dpo"
    beta: float = Field(0.1, gt=0)
    """Weight of the KL divergence from the initial policy."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed probability that a label is flipped."""


class PairRewardConfig(PairsConfig, RewardConfig):
    """TRL's RewardTrainer: a scalar head on the supervised baseline."""

    saves_model: ClassVar[bool] = True

    kind: Literal["trl/reward"] = "trl/reward"
    margin: float = Field(0.0, ge=0)
    """Margin of the loss (Touvron et al. 2023), times the certainty |2p - 1| of the label."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the reward model."""
        return [ModelLoad(policy, "reward model", trained=True, responses=2)]


@hookimpl
def rlaif_algorithms() -> Iterable[Component]:
    """Offer `trl/grpo`, `trl/rloo` and `trl/dpo`."""
    yield Component("trl/grpo", GrpoConfig, "rlaif_trl.trainers:Grpo")
    yield Component("trl/rloo", RlooConfig, "rlaif_trl.trainers:Rloo")
    yield Component("trl/dpo", DpoConfig, "rlaif_trl.trainers:Dpo")


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `trl/reward`."""
    yield Component("trl/reward", PairRewardConfig, "rlaif_trl.trainers:PairReward")
