"""Settings that algorithms share. No torch here: specs are checked without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from rlaif_framework.config import Config
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.plugins.configs import AlgorithmConfig
from rlaif_framework.plugins.slots import LabelerSlot

KlEstimator = Literal["k1", "k2", "k3"]


class CheckpointSelectionConfig(Config):
    """Over-optimisation watch: the policy answers a fixed set of validation prompts every so often (RLAIF G).

    The policy that is saved in the end is, among the checkpoints with the highest validation reward, the one that wins
    most often against the initial policy by the judge; without a judge, the one with the highest reward.
    """

    every: int = Field(50, ge=1)
    """Steps between two looks; the last step is looked at in any case."""
    prompts: int = Field(64, ge=1)
    """Validation prompts at most, chosen at random with the seed, the same at every look."""
    judge: LabelerSlot | None = None
    """Labeler that decides win rates against the initial policy. Not the one the reward was trained on."""
    candidates: int = Field(4, ge=1)
    """Checkpoints with the highest validation reward that the judge chooses among (RLAIF G: 4)."""
    patience: int | None = Field(None, ge=1)
    """Stop after so many looks in a row without a better one: by the judge's win rate, or the reward without a judge.
    None never stops."""


class LearnerConfig(AlgorithmConfig):
    """What every algorithm has that trains a policy against the initial one."""

    lr: float = Field(1e-5, gt=0)
    """Learning rate of the policy at its highest (RLAIF: 1e-5; Huang et al. 2024: 3e-6)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """What the learning rate does over the steps: stay, or fall to zero (Huang et al. 2024: linear)."""
    warmup: int = Field(0, ge=0)
    """Steps over which the learning rates rise to their highest."""
    adam_eps: float = Field(1e-5, gt=0)
    """Epsilon of AdamW (Huang et al. 2024: 1e-5)."""
    optimizer: Literal["adamw", "adafactor"] = "adamw"
    """AdamW, or Adafactor (RLAIF G), which keeps no moments of single weights and steps in proportion to their size."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are scaled down to this norm, those of policy and value model each."""
    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the initial policy (RLAIF: 0.05). What it means depends on the reward's scale,
    which the paper does not fix."""
    reference_dtype: Literal["policy", "fp32", "bf16"] = "policy"
    """Precision of the frozen initial policy when all weights are trained; with adapters it shares the base weights."""
    reference_device: Literal["policy", "cpu"] = "policy"
    """Where the frozen initial policy is kept when all weights are trained: `cpu` saves GPU memory and costs time."""

    @property
    def step_shape(self) -> tuple[int, int]:
        """Prompts of a step, and responses to each."""
        return 16, 2

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The policy, its KL reference, and what is in the component's slots."""
        groups, responses = self.step_shape
        trained = ModelLoad(
            policy, "policy", trained=True, groups=groups, responses=responses, optimizer=self.optimizer
        )
        reference = ModelLoad(
            policy, "KL reference", dtype=self.reference_dtype, shared=True, device=self.reference_device
        )
        return [trained, reference, *super().loads(policy)]


class MissingEosConfig(Config):
    """What becomes of the reward of a response that has no end token within the length limit."""

    missing_eos_penalty: float = Field(0.0, ge=0)
    """Taken off the (scaled) reward of a response that has no end token within the length limit (TRL: 1.0)."""
    missing_eos_reward: float | None = None
    """Replaces the (scaled) reward of a response that has no end token within the limit (Huang et al. 2024: -1)."""

    @model_validator(mode="after")
    def _check_missing_eos(self) -> Self:
        if self.missing_eos_penalty and self.missing_eos_reward is not None:
            raise ValueError("missing_eos_reward replaces the reward: leave missing_eos_penalty out")
        return self


class OnlineConfig(MissingEosConfig, LearnerConfig):
    """What every algorithm has that samples from the policy it trains."""

    steps: int = Field(1000, ge=1)
    """Times that responses are sampled and learned from."""
    prompts_per_step: int = Field(8, ge=1)
    """Prompts drawn for each step, over all processes."""
    responses_per_prompt: int = Field(1, ge=1)
    """Responses sampled to each prompt; prompts times responses is the paper's batch (128)."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature (RLAIF: 0.9; Huang et al. 2024: 0.7); log-probabilities are taken at the same one."""
    samples_every: int = Field(1, ge=1)
    """Write the sampled responses of every so many-th step into `samples/`."""
    checkpoint_selection: CheckpointSelectionConfig | None = None
    """Looks at the policy on validation prompts while it trains, and chooses the checkpoint."""

    @property
    def step_shape(self) -> tuple[int, int]:
        """Prompts of a step, and responses to each."""
        return self.prompts_per_step, self.responses_per_prompt


class PolicyGradientConfig(OnlineConfig):
    """What every policy-gradient algorithm has: reward, KL and how often a rollout is used."""

    epochs: int = Field(1, ge=1)
    """Passes over the responses of a step (Huang et al. 2024: 4)."""
    minibatches: int = Field(1, ge=1)
    """Updates in each pass; the prompts of a step are shared out among them (Huang et al. 2024: 1)."""
    objective: Literal["weighted", "penalised"] = "weighted"
    """`weighted` maximises (1 - beta) r - beta KL (RLAIF v2, v3), `penalised` r - beta KL (RLAIF v1, Stiennon)."""
    kl: Literal["reward", "loss"] = "reward"
    """Where the KL term goes: taken off the reward of each token (Stiennon 2020), or added to the loss (GRPO)."""
    kl_estimator: KlEstimator = "k1"
    """Estimate of a token's KL (Schulman 2020): k1 = log pi - log pi_ref, k2 = k1^2 / 2, k3 = exp(-k1) - 1 + k1."""
    kl_correction: bool = False
    """With `kl: loss`, multiply the estimate by the probability ratio, which keeps it unbiased after several updates
    and gives k3 the gradient of the KL (DeepSeek-AI 2025, DeepSeek-V3.2; what TRL's GRPO does by default)."""
    kl_target: float | None = Field(None, gt=0)
    """Adapt beta so that the KL of a response (k1, summed over its tokens) stays near this (Ziegler et al. 2019); None
    keeps it fixed."""
    kl_horizon: float = Field(10000, gt=0)
    """Responses over which an adaptive beta changes by about its whole error."""
    scale_rewards: bool = False
    """Divide rewards by their standard deviation over the first step's responses. Then `beta` weighs the KL term
    against a reward of unit spread, whatever scale the reward model has."""
    whiten_rewards: bool = False
    """Divide the rewards of tokens, KL included, by their standard deviation over the step; their mean stays."""
    whiten_advantages: bool = False
    """Shift and scale the advantages of a step's tokens to mean 0 and standard deviation 1."""
    clip: float | None = Field(None, gt=0)
    """Clip the probability ratio to [1 - clip, 1 + clip] (PPO: 0.2). None trusts the samples: with one update a step
    they are the policy's own."""
    entropy: float = Field(0.0, ge=0)
    """Weight of an entropy bonus, in nats a token."""
    average: Literal["responses", "response-tokens", "tokens"] = "responses"
    """How token losses become one: summed over a response's tokens and averaged over responses (RLAIF F), averaged over
    a response's tokens and then over responses (GRPO), or averaged over all tokens (Huang et al. 2024)."""

    @model_validator(mode="after")
    def _check_settings(self) -> PolicyGradientConfig:
        if self.objective == "weighted" and self.beta > 1:
            raise ValueError("beta: with objective 'weighted' it is a share between 0 and 1")
        if self.kl == "loss" and self.kl_estimator == "k1":
            raise ValueError("kl_estimator: k1 has no gradient on average as a loss; use k2 or k3, or 'kl: reward'")
        if self.kl_correction and self.kl != "loss":
            raise ValueError("kl_correction: it corrects the KL in the loss; set 'kl: loss'")
        responses = self.prompts_per_step * self.responses_per_prompt
        if self.kl_target is not None and not self.beta:
            raise ValueError("kl_target: a beta of 0 cannot adapt; start from a small one")
        if self.kl_target is not None and self.kl_horizon <= 0.2 * responses:
            raise ValueError(
                f"kl_horizon: {self.kl_horizon:g} responses, with {responses} a step, could turn beta negative"
            )
        if self.prompts_per_step % self.minibatches:
            raise ValueError(
                f"minibatches: {self.prompts_per_step} prompts a step cannot be divided into {self.minibatches}"
            )
        return self

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether log-probabilities must be taken before the first update of a step, and not along with it."""
        return self.epochs * self.minibatches > 1 or self.whiten_rewards or self.whiten_advantages


class ValueConfig(PolicyGradientConfig):
    """What every algorithm has that trains a value model beside the policy."""

    value_from: Literal["sft", "reward"] = "sft"
    """What the value model starts from: the initial policy (RLAIF F), or the reward model (Huang et al. 2024)."""
    value_lr: float | None = Field(None, gt=0)
    """Learning rate of the value model; default: the policy's."""
    value_weight: float = Field(1.0, ge=0)
    """Weight of the value loss (Huang et al. 2024: 0.1, of half the squared error)."""
    value_clip: float | None = Field(None, gt=0)
    """Clip the change of a value since the samples to this (PPO: 0.2)."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount of a token's reward for the token before it (RLAIF F: 1)."""

    @property
    def needs_reward_model(self) -> bool:
        """If the value model starts from it."""
        return self.value_from == "reward"

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """Policy and value model; with adapters both, and the KL reference, share one copy of the base weights."""
        groups, responses = self.step_shape
        shared = self.value_from == "sft"
        value = ModelLoad(
            policy,
            "value model",
            trained=True,
            shared=shared,
            groups=groups,
            responses=responses,
            optimizer=self.optimizer,
        )
        return [*super().loads(policy), value]


class GaeConfig(ValueConfig):
    """What every algorithm has that estimates advantages with the value model (Schulman et al. 2016)."""

    lam: float = Field(1.0, ge=0, le=1)
    """Lambda of generalised advantage estimation; 1 is the plain return less the value."""
    end_value: bool = False
    """Value finished responses too: the score comes one step after the last token, and the state between them has a
    value of its own that learns it (Huang et al. 2024 add the score after the end token). With `lam: 1` advantages are
    the same."""
