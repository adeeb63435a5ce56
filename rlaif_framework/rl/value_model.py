"""The value model: a score at every token position."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlaif_framework.assembly.context import Context
from rlaif_framework.errors import TrainingError
from rlaif_framework.models.packing import Packed
from rlaif_framework.models.score_model import ScoreModel
from rlaif_framework.rl.config import ValueConfig


class ValueModel(nn.Module):
    """V(X_t): a score at every position, plus a trained offset.

    The zero of a reward model's scale is arbitrary. The offset is set so that the values of the first responses equal
    their scores on average. Without it, all first advantages would have the same sign, and would raise or lower the
    probabilities of all responses until the value model has learned the offset.
    """

    def __init__(self, scores: ScoreModel) -> None:
        super().__init__()
        self.scores = scores
        self.offset = nn.Parameter(torch.zeros((), device=next(scores.parameters()).device))

    def shift(self, by: Tensor) -> None:
        """Add a number to all values."""
        with torch.no_grad():
            self.offset.add_(by)

    def forward(self, packed: Packed, final_states: bool = False) -> Tensor:
        """Predict values of states.

        Args:
            packed: A batch of prompts and responses.
            final_states: If True, also predict the value of the state after each response.

        Returns:
            (response tokens,) fp32 value of the state before each response token, or (response tokens + responses,)
            with those of the final states appended.
        """
        rows, columns = packed.rows, packed.columns
        if final_states:
            rows, columns = torch.cat([rows, packed.ends[:, 0]]), torch.cat([columns, packed.ends[:, 1]])
        values: Tensor = self.scores(packed, rows, columns) + self.offset
        return values


def load_value_model(
    config: ValueConfig,
    context: Context,
    initial: Path,
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    reward_folder: Path | None,
) -> ValueModel:
    """Load a value model from the initial policy or from the reward model.

    Args:
        config: `value_from` names the source.
        context: Settings of adapters, precision and device.
        initial: Folder of the initial policy.
        policy: The loaded initial policy; with adapters, the value model shares its base weights.
        tokenizer: Tokenizer of the policy.
        reward_folder: Folder of the arm's reward model, if there is one.

    Raises:
        TrainingError: There is no trained reward model to start from, or its tokenizer differs from the policy's.
    """
    lora = context.policy.lora
    if config.value_from == "sft" and lora is not None:
        return ValueModel(ScoreModel.over(policy, lora))
    folder = initial if config.value_from == "sft" else reward_folder
    if folder is None or not (folder / "config.json").exists():
        raise TrainingError("value_from: reward needs a reward that is a trained model; use value_from: sft")
    source = context.find_trained(folder)
    own = context.load_policy_tokenizer(source)
    # A subset, because a reward model's tokenizer may have a padding token in addition (see `separate_padding`).
    if not tokenizer.get_vocab().items() <= own.get_vocab().items():
        raise TrainingError("value_from: the reward model's tokenizer is not the policy's; use value_from: sft")
    return ValueModel(ScoreModel.load(source, own, context.dtype, context.device, lora, train=True))
