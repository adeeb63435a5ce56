"""Settings that algorithms share. Without torch, because specs are validated without it."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Literal, Self

from pydantic import Field, model_validator

from rlaif_framework.config import Config
from rlaif_framework.plugins.component import ModelLoad
from rlaif_framework.plugins.configs import AlgorithmConfig
from rlaif_framework.plugins.slots import LabelerSlot
from rlaif_framework.spec.model import OptimizerConfig

KlEstimator = Literal["k1", "k2", "k3"]

ALARM_RESPONSES, ALARM_PROMPTS = 64, 16
"""Number of responses, and of the prompts that they answer, that the alarm compares; half as many in short runs."""


class CheckpointSelectionConfig(Config):
    """Regular evaluations on fixed validation prompts, to stop before the reward is over-optimised (RLAIF G).

    The saved policy is, of the checkpoints with the highest validation reward, the one with the highest win rate
    against the initial policy; without a judge, the one with the highest reward.
    """

    every: int = Field(50, ge=1)
    """Steps between two evaluations; the last step is always evaluated."""
    prompts: int = Field(64, ge=1)
    """Maximum number of validation prompts, drawn at random with the seed; the same in every evaluation."""
    judge: LabelerSlot | None = None
    """Labeler that decides win rates against the initial policy. Use another one than the reward was trained on."""
    candidates: int = Field(4, ge=1)
    """Number of checkpoints with the highest validation reward that the judge selects from (RLAIF G: 4)."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many consecutive evaluations without improvement of the win rate, or of the reward without a
    judge. None never stops early."""


class LearnerConfig(OptimizerConfig, AlgorithmConfig):
    """Settings of algorithms that train a policy against the frozen initial one."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning-rate schedule after the warm-up: constant, or decay to zero (Huang et al. 2024: linear)."""
    warmup: int = Field(0, ge=0)
    """Steps of linear learning-rate warm-up."""
    adam_eps: float = Field(1e-5, gt=0)
    """Epsilon of AdamW (Huang et al. 2024: 1e-5)."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Gradients are clipped to this norm, separately for the policy and the value model."""
    beta: float = Field(0.05, ge=0)
    """Weight of the KL divergence from the initial policy (RLAIF: 0.05). Its effect depends on the scale of the reward,
    which the paper does not specify."""
    reference_dtype: Literal["policy", "fp32", "bf16"] = "policy"
    """Precision of the frozen initial policy when all weights are trained; with adapters it shares the base weights."""
    reference_device: Literal["policy", "cpu"] = "policy"
    """Device of the frozen initial policy when all weights are trained: `cpu` saves GPU memory and takes more time."""

    @property
    def step_shape(self) -> tuple[int, int]:
        """Prompts in a step, and responses to each, for the memory plan."""
        return 16, 2

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the policy, its KL reference, and the models of nested components."""
        groups, responses = self.step_shape
        trained = ModelLoad(
            policy, "policy", trained=True, groups=groups, responses=responses, optimizer=self.optimizer
        )
        reference = ModelLoad(
            policy, "KL reference", dtype=self.reference_dtype, shared=True, device=self.reference_device
        )
        return [trained, reference, *super().loads(policy)]


class MissingEosConfig(Config):
    """Rewards of responses that have no end token within the length limit."""

    missing_eos_penalty: float = Field(0.0, ge=0)
    """Subtracted from the (scaled) reward of a response without an end token within the length limit (TRL: 1.0)."""
    missing_eos_reward: float | None = None
    """Replaces the (scaled) reward of a response without an end token within the limit (Huang et al. 2024: -1)."""

    @model_validator(mode="after")
    def _check_missing_eos(self) -> Self:
        if self.missing_eos_penalty and self.missing_eos_reward is not None:
            raise ValueError("missing_eos_reward replaces the reward; remove missing_eos_penalty")
        return self


class OnlineConfig(MissingEosConfig, LearnerConfig):
    """Settings of algorithms that sample responses from the policy they train."""

    steps: int = Field(1000, ge=1)
    """Training steps; each samples responses and learns from them."""
    prompts_per_step: int = Field(8, ge=1)
    """Prompts drawn for each step, over all processes."""
    responses_per_prompt: int = Field(1, ge=1)
    """Responses sampled to each prompt; prompts times responses is the paper's batch size (128)."""
    temperature: float = Field(0.9, gt=0)
    """Sampling temperature (RLAIF: 0.9; Huang et al. 2024: 0.7), also applied to log-probabilities."""
    samples_every: int = Field(1, ge=1)
    """Interval, in steps, at which sampled responses are written to `samples/`."""
    checkpoint_selection: CheckpointSelectionConfig | None = None
    """Evaluates the policy on validation prompts during training, and selects the checkpoint to keep."""
    alarm: Literal["warn", "stop", "off"] = "warn"
    """If the reward rises while the responses get worse, a sign of reward hacking: `warn`, or `stop` training and keep
    the last policy that was saved, every `alarm_every` steps, before the responses that raised it."""
    alarm_every: int = Field(10, ge=1)
    """Steps between two checks of the alarm. With `checkpoint_selection`, its evaluations are the checks."""

    @model_validator(mode="after")
    def _check_alarm(self) -> Self:
        if self.alarm == "stop" and self.steps < self.alarm_window:
            raise ValueError(
                f"alarm: it compares the responses of {self.alarm_window} steps (at least {ALARM_RESPONSES // 2} to "
                f"{ALARM_PROMPTS // 2} prompts) with those of the initial policy, and there are {self.steps} steps; "
                "set more steps or prompts_per_step, or alarm: warn"
            )
        return self

    @property
    def alarm_window(self) -> int:
        """The number of last steps whose responses the alarm compares with those of the initial policy.

        At most a third of the steps, so that the responses of the first ones, which are like the initial policy's, do
        not hide what the last ones have become; but never less than half of the usual number of responses.
        """
        full, half = (self._steps_with(ALARM_PROMPTS // n, ALARM_RESPONSES // n) for n in (1, 2))
        return min(full, max(half, self.steps // 3))

    def _steps_with(self, prompts: int, responses: int) -> int:
        """Return the number of steps that have at least so many prompts and responses."""
        own = self.prompts_per_step
        return max(ceil(prompts / own), ceil(responses / (own * self.responses_per_prompt)))

    @property
    def check_every(self) -> int:
        """Steps between two checks of the alarm."""
        return self.alarm_every if self.checkpoint_selection is None else self.checkpoint_selection.every

    def step_before_check(self, number: int) -> int:
        """Return the step of the last saved policy that sampled none of the responses that a check compares.

        The policy of the check before may have sampled most of them, when there were too few for an alarm.

        Args:
            number: Completed steps at the check.
        """
        before = max(number - self.alarm_window - 1, 0)
        return before - before % self.check_every

    def alarm_reads(self, number: int) -> bool:
        """Return True if a check of the alarm reads the responses of a step, counted from 0."""
        following = min((number // self.check_every + 1) * self.check_every, self.steps)
        return self.alarm != "off" and self.steps >= self.alarm_window and following - self.alarm_window <= number

    @property
    def unused_settings(self) -> frozenset[str]:
        """The settings of the alarm unless it may stop: a warning does not change the policy."""
        return super().unused_settings | (frozenset() if self.alarm == "stop" else {"alarm", "alarm_every"})

    @property
    def step_shape(self) -> tuple[int, int]:
        """Prompts in a step, and responses to each."""
        return self.prompts_per_step, self.responses_per_prompt


class PolicyGradientConfig(OnlineConfig):
    """Settings of policy-gradient algorithms: objective, KL term, advantages and updates."""

    epochs: int = Field(1, ge=1)
    """Passes over the responses of a step (Huang et al. 2024: 4)."""
    minibatches: int = Field(1, ge=1)
    """Updates in each pass; the prompts of a step are divided among them (Huang et al. 2024: 1)."""
    objective: Literal["weighted", "penalised"] = "weighted"
    """`weighted` maximises (1 - beta) r - beta KL (RLAIF v2, v3), `penalised` r - beta KL (RLAIF v1, Stiennon)."""
    kl: Literal["reward", "loss"] = "reward"
    """Place of the KL term: subtracted from the reward of each token (Stiennon 2020), or added to the loss (GRPO)."""
    kl_estimator: KlEstimator = "k1"
    """Estimate of a token's KL (Schulman 2020): k1 = log pi - log pi_ref, k2 = k1^2 / 2, k3 = exp(-k1) - 1 + k1."""
    kl_correction: bool = False
    """With `kl: loss`, multiply the estimate by the probability ratio: its expectation then is that under the current
    policy, also after several updates, and k3 gets the gradient of the KL (DeepSeek-AI 2025, DeepSeek-V3.2; the default
    of TRL's GRPO). k2 has this gradient without it, and loses it."""
    kl_target: float | None = Field(None, gt=0)
    """Adapt beta so that the KL of a response (k1, summed over its tokens) stays near this value (Ziegler et al. 2019);
    None keeps beta fixed."""
    kl_horizon: float = Field(10000, gt=0)
    """Number of responses over which an adaptive beta corrects a whole error."""
    scale_rewards: bool = False
    """Divide rewards by their standard deviation over the first step's responses. The meaning of `beta` then does not
    depend on the scale of the reward model."""
    whiten_rewards: bool = False
    """Divide the rewards of tokens, KL included, by their standard deviation over the step; their mean is unchanged."""
    whiten_advantages: bool = False
    """Shift and scale the advantages of a step's tokens to mean 0 and standard deviation 1."""
    clip: float | None = Field(None, gt=0)
    """Clip the probability ratio to [1 - clip, 1 + clip] (PPO: 0.2). None does not clip: with a single update per
    step the ratio is 1 anyway."""
    entropy: float = Field(0.0, ge=0)
    """Weight of the entropy bonus; entropies are in nats per token."""
    average: Literal["responses", "response-tokens", "tokens"] = "responses"
    """Reduction of token losses: summed over a response's tokens and averaged over responses (RLAIF F), averaged over
    a response's tokens and then over responses (GRPO), or averaged over all tokens (Huang et al. 2024)."""

    @model_validator(mode="after")
    def _check_settings(self) -> PolicyGradientConfig:
        if self.objective == "weighted" and self.beta > 1:
            raise ValueError("beta: with objective 'weighted' at most 1; lower it or set objective: penalised")
        # The gradient of k1 is the score function, whose expectation is 0.
        if self.kl == "loss" and self.kl_estimator == "k1":
            raise ValueError(
                "kl_estimator: k1 in the loss has a gradient of 0 on average; use k2 or k3, or 'kl: reward'"
            )
        if self.kl_correction and self.kl != "loss":
            raise ValueError("kl_correction: it applies to the KL in the loss; set 'kl: loss'")
        responses = self.prompts_per_step * self.responses_per_prompt
        if self.kl_target is not None and not self.beta:
            raise ValueError("kl_target: a beta of 0 cannot adapt; set a small positive beta")
        # A step changes beta by at most 0.2 * responses / kl_horizon of its value, see `adapt_beta`.
        if self.kl_target is not None and self.kl_horizon <= 0.2 * responses:
            raise ValueError(
                f"kl_horizon: {self.kl_horizon:g} responses, with {responses} a step, could turn beta negative; "
                f"use more than {0.2 * responses:g}"
            )
        # Minibatches of equal size: the mean of their KLs is then that of the step.
        if self.prompts_per_step % self.minibatches:
            raise ValueError(
                f"minibatches: {self.prompts_per_step} prompts a step cannot be divided into {self.minibatches}; "
                f"change one of the two"
            )
        return self

    @property
    def needs_old_logprobs(self) -> bool:
        """True if log-probabilities are computed before the first update of a step, rather than by the update."""
        # Whitening needs the moments over all responses of the step before the first gradient.
        return self.epochs * self.minibatches > 1 or self.whiten_rewards or self.whiten_advantages

    @property
    def value_settings(self) -> ValueConfig | None:
        """Settings of the value model; None for an algorithm without one."""
        return None


class ValueConfig(PolicyGradientConfig):
    """Settings of algorithms that train a value model along with the policy."""

    value_from: Literal["sft", "reward"] = "sft"
    """Initial weights of the value model: those of the initial policy (RLAIF F) or of the reward model (Huang et al.
    2024)."""
    value_lr: float | None = Field(None, gt=0)
    """Peak learning rate of the value model; default: the policy's."""
    value_weight: float = Field(1.0, ge=0)
    """Weight of the value loss (Huang et al. 2024: 0.1, of half the squared error)."""
    value_clip: float | None = Field(None, gt=0)
    """Clip the change of a value since sampling to this (PPO: 0.2)."""
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount factor per token (RLAIF F: 1)."""

    @property
    def value_settings(self) -> ValueConfig | None:
        """These settings; a subclass may do without a value model and return None."""
        return self

    @property
    def values_final_states(self) -> bool:
        """True if values of the states after responses are predicted, too."""
        return False

    @property
    def needs_reward_model(self) -> bool:
        """True if the value model starts from the reward model."""
        return self.value_settings is not None and self.value_from == "reward"

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List policy and value model; with adapters, they and the KL reference share the base weights."""
        if self.value_settings is None:
            return super().loads(policy)
        groups, responses = self.step_shape
        shared = self.value_from == "sft"  # a reward model has base weights of its own
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
    """Settings of algorithms with generalised advantage estimation (Schulman et al. 2016)."""

    lam: float = Field(1.0, ge=0, le=1)
    """Lambda of generalised advantage estimation; 1 is the return minus the value."""
    end_value: bool = False
    """Also predict the value of the state after the last token: the score then comes one step later and is the return
    of that state (Huang et al. 2024 add the score after the end token). With `lam: 1` and `gamma: 1` advantages are the
    same, if rewards are not whitened."""

    @property
    def values_final_states(self) -> bool:
        """True with `end_value`."""
        return self.end_value
