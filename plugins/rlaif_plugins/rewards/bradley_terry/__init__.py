"""The reward model `bradley-terry`: a scalar head trained with cross-entropy on soft labels (RLAIF A.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from rlaif_framework import Component, LoraSettings, ModelLoad, ModelName, OptimizerConfig, RewardConfig, hookimpl
from rlaif_framework.training import Bounds


class BradleyTerryConfig(OptimizerConfig, RewardConfig):
    """Reward model: a causal LM with a scalar head, trained with the Bradley-Terry loss on soft labels."""

    kind: Literal["bradley-terry"] = "bradley-terry"
    model: Annotated[Literal["sft", "base"] | ModelName, Field(union_mode="left_to_right")] = "sft"
    """Initial model: `sft`, the supervised baseline (the paper's choice for AI labels); `base`, the policy's model
    before fine-tuning (its choice for human labels); or any model in the same forms as `policy.model`."""
    trust_remote_code: bool = False
    """Run the Python code in the folder or repository of another `model` than the policy's. It can do
    everything that you can, so read it first."""
    lora: Literal["policy"] | LoraSettings | None = "policy"
    """Low-rank adapters: those of the policy (`policy`), other settings, or null to train all weights."""
    head: Literal["zeros", "normal"] = "zeros"
    """Initialisation of the head: zeros, or N(0, 1 / (width + 1)) (Huang et al. 2024)."""
    labels: Literal["soft", "hard"] = "soft"
    """Targets: the labels' probabilities (RLAIF A.2), or the preferred response only. Exact ties stay ties."""
    label_temperature: float = Field(1.0, gt=0)
    """Temperature that the log-odds of the labels are divided by. Above 1 makes the labels softer."""
    label_clamp: Bounds | None = None
    """Lower and upper bound of the labels' probabilities, symmetric around 0.5, e.g. [0.4, 0.6] (Bai et al. 2022)."""
    weights: Literal["equal", "certainty", "confidence"] = "equal"
    """Weights of the comparisons: equal, the certainty of the label (|2p - 1|), or the annotator's confidence where the
    data has one."""
    margin: float = Field(0.0, ge=0)
    """Margin of the loss: it is subtracted from the difference of scores, times the certainty |2p - 1| of the label
    (Touvron et al. 2023)."""
    centre: bool = False
    """If True, shift the scores after training so that the references of training prompts have mean score 0 (Huang et
    al. 2024)."""
    epochs: float = Field(1.0, gt=0)
    """Number of passes over the labels (RLAIF: 2-3)."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Fraction of the steps used for linear warm-up (Huang et al. 2024: 0)."""
    batch_size: int = Field(16, ge=1)
    """Average number of comparisons per optimiser step (RLAIF: 128). Those of one prompt stay together."""
    max_response_tokens: int | None = Field(None, ge=1)
    """Truncate responses to this many tokens and score them there (RLAIF: 128; Huang et al. 2024: 169)."""

    saves_model: ClassVar[bool] = True

    @property
    def needs_preferences(self) -> bool:
        """Always True."""
        return True

    @property
    def needs_baseline(self) -> bool:
        """True if training starts from the supervised baseline."""
        return self.model == "sft"

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """Those of sampling; only centring scores responses to prompts."""
        unused = {"max_new_tokens"} if self.centre else {"max_new_tokens", "max_prompt_tokens", "batch_tokens"}
        return frozenset(unused if self.lora == "policy" else {*unused, "lora"})

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the initial model."""
        model = policy if self.model in ("sft", "base") else self.model
        return [
            ModelLoad(
                model,
                "reward model",
                trained=True,
                groups=self.batch_size,
                responses=2,
                lora=self.lora,
                optimizer=self.optimizer,
                trust_remote_code=self.trust_remote_code,
            )
        ]


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `bradley-terry`."""
    yield Component("bradley-terry", BradleyTerryConfig, "rlaif_plugins.rewards.bradley_terry.model:BradleyTerry")
