"""The Bradley-Terry reward model: a scalar head trained by cross-entropy on soft labels (RLAIF A.2)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

from pydantic import Field

from rlaif_framework import Component, ComponentConfig, LoraSettings, ModelLoad, OptimizerConfig, hookimpl
from rlaif_framework.training import Bounds


class BradleyTerryConfig(OptimizerConfig, ComponentConfig):
    """A scalar head on a causal LM, trained so that differences of scores explain the soft labels."""

    kind: Literal["bradley-terry"] = "bradley-terry"
    model: str = "sft"
    """What it starts from: `sft`, the supervised baseline (the paper's choice for AI labels); `base`, the policy's
    model before it (its choice for human labels); or any model: hub id, folder, GGUF file, `package:NAME`."""
    lora: Literal["policy"] | LoraSettings | None = "policy"
    """Adapters to train instead of all weights: as the policy's, others, or null for all weights."""
    head: Literal["zeros", "normal"] = "zeros"
    """First weights of a new head: zeros (no opinion), or N(0, 1 / (width + 1)) (Huang et al. 2024)."""
    labels: Literal["soft", "hard"] = "soft"
    """Learn the labels' probabilities (RLAIF A.2), or the likelier response alone; exact ties stay ties."""
    label_temperature: float = Field(1.0, gt=0)
    """Divides the log-odds of the labels: above 1 makes them softer, against an overconfident labeler."""
    label_clamp: Bounds | None = None
    """Bounds for the labels' probabilities, e.g. [0.4, 0.6] (Bai et al. 2022)."""
    weights: Literal["equal", "certainty", "confidence"] = "equal"
    """What a comparison counts: the same, by how far its label is from a tie (|2p - 1|), or by the rater's confidence,
    where the data gives one."""
    margin: float = Field(0.0, ge=0)
    """Difference of scores that a certain label asks for before its loss is ln 2, less for an uncertain one: |2p - 1|
    times this (Touvron et al. 2023, with the label as the rating)."""
    centre: bool = False
    """Shift scores after training so that the training prompts' references score 0 on average (Huang et al. 2024)."""
    epochs: float = Field(1.0, gt=0)
    """Passes over the labels (RLAIF: 2-3)."""
    warmup: float = Field(0.1, ge=0, le=1)
    """Share of the steps over which the learning rate rises (Huang et al. 2024: 0)."""
    batch_size: int = Field(16, ge=1)
    """Comparisons per optimiser step (RLAIF: 128), on average: those of one prompt stay together."""
    max_response_tokens: int | None = Field(None, ge=1)
    """Cut longer responses to so many tokens and score them there (RLAIF: 128; Huang et al. 2024: 169)."""

    saves_model: ClassVar[bool] = True

    @property
    def needs_preferences(self) -> bool:
        """Always."""
        return True

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The model it starts from."""
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
            )
        ]


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `bradley-terry`."""
    yield Component("bradley-terry", BradleyTerryConfig, "rlaif_plugins.rewards.bradley_terry.model:BradleyTerry")
