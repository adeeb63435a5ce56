"""A reward model that somebody else has trained."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from rlaif_framework import Component, ModelLoad, RewardConfig, hookimpl


class PretrainedRewardConfig(RewardConfig):
    """Any sequence-classification model that gives one number, as the reward; nothing is trained."""

    kind: Literal["pretrained"] = "pretrained"
    model: str
    """A hub id, a model folder, or `package:NAME`."""
    revision: str | None = None
    """Git revision of a hub model."""
    format: Literal["auto", "chat", "pair", "text"] = "auto"
    """How prompt and response are put: as the two turns of the model's chat template, as the two texts of an encoder
    (`[CLS] prompt [SEP] response [SEP]`), or as one text that ends in the end token, as `bradley-terry` does. auto:
    the chat template where there is one, else the pair where the tokenizer has a classification token, else text."""
    batch_size: int = Field(16, ge=1)
    """Responses scored at once."""
    max_tokens: int | None = Field(None, ge=16)
    """Longer inputs lose the beginning of the prompt, never the response. Default: what the model has positions for."""

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """The model."""
        return [ModelLoad(self.model, "reward model")]


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `pretrained`."""
    yield Component("pretrained", PretrainedRewardConfig, "rlaif_plugins.rewards.pretrained.model:PretrainedReward")
