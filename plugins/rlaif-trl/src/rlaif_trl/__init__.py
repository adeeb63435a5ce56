"""TRL's trainers as algorithms and as a reward: settings and registration. Names are those of the built-in components."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import AlgorithmConfig, Component, ModelLoad, OptimizerConfig, RewardConfig, hookimpl
from rlaif_framework.rl import MissingEosConfig


class TrainerConfig(OptimizerConfig):
    """Settings of all trainers."""

    warmup: int = Field(0, ge=0)
    """Steps of linear warm-up."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm."""


class PolicyTrainerConfig(TrainerConfig, AlgorithmConfig):
    """Settings of the trainers of a policy."""

    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the initial policy."""

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """TRL generates the responses of a step at once."""
        return frozenset({"batch_tokens"})

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the policy and the KL reference."""
        trained = ModelLoad(policy, "policy", trained=True, optimizer=self.optimizer)
        return [trained, ModelLoad(policy, "KL reference", shared=True)]


class OnlineTrainerConfig(PolicyTrainerConfig, MissingEosConfig):
    """Settings of the trainers that sample responses."""

    steps: int = Field(1000, ge=1)
    """Training steps; each samples responses and learns from them."""
    prompts_per_step: int = Field(8, ge=1)
    """Prompts drawn for each step, over all processes."""
    responses_per_prompt: int = Field(8, ge=2)
    """Responses sampled to each prompt: TRL's `num_generations`."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature."""


class GrpoConfig(OnlineTrainerConfig):
    """TRL's GRPOTrainer (Shao et al. 2024)."""

    kind: Literal["trl/grpo"] = "trl/grpo"
    loss_type: Literal["grpo", "dr_grpo", "bnpo", "dapo"] = "dapo"
    """Reduction of the token losses, as in TRL."""
    scale_rewards: Literal["group", "batch", "none"] = "group"
    """Responses over which the advantages are divided by the standard deviation, as in TRL."""


class RlooConfig(OnlineTrainerConfig):
    """TRL's RLOOTrainer (Ahmadian et al. 2024)."""

    kind: Literal["trl/rloo"] = "trl/rloo"
    normalize_advantages: bool = False
    """If True, shift and scale the advantages of a step to mean 0 and standard deviation 1."""


class PairTrainerConfig(TrainerConfig):
    """Settings of the trainers on preferences. TRL takes hard labels: ties are left out, and counted."""

    epochs: float = Field(1.0, gt=0)
    """Passes over the comparisons."""
    batch_size: int = Field(16, ge=1)
    """Comparisons per update, over all processes."""

    @property
    def needs_preferences(self) -> bool:
        """Always True."""
        return True


class DpoConfig(PairTrainerConfig, PolicyTrainerConfig):
    """TRL's DPOTrainer (Rafailov et al. 2023), on the preferred responses."""

    kind: Literal["trl/dpo"] = "trl/dpo"
    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """Loss of a pair, as in TRL."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed probability that a label is flipped."""

    @property
    def needs_reward(self) -> bool:
        """Always False."""
        return False


class PairRewardConfig(PairTrainerConfig, RewardConfig):
    """TRL's RewardTrainer: a scalar head on the supervised baseline, trained on the preferred responses."""

    saves_model: ClassVar[bool] = True

    kind: Literal["trl/reward"] = "trl/reward"
    margin: float = Field(0.0, ge=0)
    """Margin of the loss (Touvron et al. 2023), times the certainty |2p - 1| of a label: what TRL can use of it."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the reward model."""
        return [ModelLoad(policy, "reward model", trained=True, groups=self.batch_size, responses=2)]


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
