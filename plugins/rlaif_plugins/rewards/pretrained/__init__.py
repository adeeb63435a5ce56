"""The reward `pretrained`: an existing reward model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from pydantic import Field

from rlaif_framework import MODEL_FREE, Component, ModelLoad, ModelName, RewardConfig, hookimpl


class PretrainedRewardConfig(RewardConfig):
    """Use an existing sequence-classification model with one output as the reward, without training."""

    kind: Literal["pretrained"] = "pretrained"
    model: ModelName
    """Hub id, model folder, or `package:NAME`."""
    revision: str | None = None
    """Git revision of a hub model."""
    trust_remote_code: bool = False
    """Run the Python code in the model's folder or repository. It can do everything that you can, so read it first."""
    format: Literal["auto", "chat", "pair", "text"] = "auto"
    """Input format: the two turns of the model's chat template, the text pair of an encoder
    (`[CLS] prompt [SEP] response [SEP]`), or plain text that ends with the EOS token, as for `bradley-terry`. `auto` is
    `chat` if the model has a chat template, else `pair` if the tokenizer has a classification token, else `text`."""
    batch_size: int = Field(16, ge=1)
    """Number of responses per batch."""
    max_tokens: int | None = Field(None, ge=16)
    """Maximum length of an input in tokens. The prompt is truncated, never the response. By default the number of
    positions of the model."""

    @property
    def needs_baseline(self) -> bool:
        """Always False: nothing is trained."""
        return False

    @property
    def unused_policy_settings(self) -> frozenset[str]:
        """All that only matter for a policy, except its precision."""
        return MODEL_FREE - {"dtype"}

    def loads(self, policy: str) -> Sequence[ModelLoad]:
        """List the model."""
        return [ModelLoad(self.model, "reward model", trust_remote_code=self.trust_remote_code)]


@hookimpl
def rlaif_reward_models() -> Iterable[Component]:
    """Offer `pretrained`."""
    yield Component("pretrained", PretrainedRewardConfig, "rlaif_plugins.rewards.pretrained.model:PretrainedReward")
