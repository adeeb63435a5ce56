"""A transformers model with a head of one number per position: reward models and value models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlaif_framework.errors import ModelError
from rlaif_framework.models import add_lora, load_model, save_model
from rlaif_framework.packing import Group, Packed, pack_groups, split_by_tokens
from rlaif_framework.spec import LoraSettings


class ScoreModel(nn.Module):
    """A sequence-classification model with one output, read at any positions of a packed batch."""

    def __init__(self, model: nn.Module, inner: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        """The transformers model, wrapped in adapters or not."""
        self._inner = (inner,)  # in a tuple, so that its parameters are not registered twice

    @classmethod
    def load(
        cls,
        folder: str | Path,
        tokenizer: PreTrainedTokenizerBase,
        dtype: torch.dtype,
        device: torch.device,
        lora: LoraSettings | None = None,
        train: bool = False,
    ) -> ScoreModel:
        """Load a model folder; a causal LM gets a head of zeros, a saved scoring model keeps its own.

        Args:
            folder: A model folder or name.
            tokenizer: Its tokenizer; the padding token is set apart from the end token, see `separate_padding`.
            dtype: Precision of the weights that are not trained.
            device: Where to put it.
            lora: Adapters to train instead of all weights.
            train: Whether it will be trained: weights that are must be fp32.

        Raises:
            ModelError: The architecture has no sequence-classification head named `score`.
        """
        weights = torch.float32 if train and lora is None else dtype
        pad = separate_padding(tokenizer)
        inner = load_model(folder, "score", weights, device, num_labels=1, pad_token_id=pad)
        head = dict(inner.named_children()).get("score")
        if not isinstance(head, nn.Linear):
            raise ModelError(f"'{folder}': {type(inner).__name__} has no linear head named 'score'")
        head.float()  # a score of 8 bits could not tell near responses apart
        if not any("ForSequenceClassification" in name for name in _architectures(folder)):
            nn.init.zeros_(head.weight)
        model: nn.Module = inner
        if train and lora is not None:
            model = add_lora(inner, lora, "SEQ_CLS")
        return cls(model, inner)

    def forward(self, packed: Packed, rows: Tensor, columns: Tensor) -> Tensor:
        """Scores at the given positions of a packed batch, (positions,) fp32."""
        inner = self._inner[0]
        hidden = inner.base_model(**packed.model_inputs(inner), use_cache=False).last_hidden_state
        picked = hidden[rows, columns]  # (positions, width)
        with torch.autocast(picked.device.type, enabled=False):
            return inner.score(picked.float()).squeeze(-1)  # type: ignore[operator,no-any-return]

    def save(self, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype) -> None:
        """Save a plain folder that `AutoModelForSequenceClassification` opens and scores with in the same way."""
        save_model(self.model, tokenizer, folder, dtype)

    @torch.no_grad()
    def score_groups(self, groups: Sequence[Group], pad_id: int, budget: int, dtype: torch.dtype) -> list[float]:
        """Scores of all responses at their last tokens, in order, batched by length without gradients."""
        scores: dict[int, list[float]] = {}
        device = next(self.parameters()).device
        for batch in split_by_tokens([g.length for g in groups], budget):
            packed = pack_groups([groups[i] for i in batch], pad_id, device)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                values = iter(self(packed, packed.ends[:, 0], packed.ends[:, 1]).tolist())
            for i in batch:
                scores[i] = [next(values) for _ in groups[i].responses]
        return [value for i in range(len(groups)) for value in scores[i]]


def _architectures(folder: str | Path) -> list[str]:
    from transformers import AutoConfig

    from rlaif_framework.model_source import find_model
    from rlaif_framework.models import materialise

    source = find_model(str(folder))
    config = AutoConfig.from_pretrained(materialise(source), revision=source.revision or "main")
    return list(config.architectures or [])


def separate_padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """Give a tokenizer a padding token other than its end token, and its id.

    transformers scores a sequence at its last token that is not padding: with the end token as padding it would read
    one position too early.

    Raises:
        ModelError: The tokenizer has no other special token to pad with.
    """
    end = tokenizer.eos_token_id
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != end:
        return int(tokenizer.pad_token_id)
    for token in (tokenizer.unk_token, tokenizer.bos_token, *tokenizer.all_special_tokens):
        if token is not None and tokenizer.convert_tokens_to_ids(token) != end:
            tokenizer.pad_token = token
            return int(tokenizer.pad_token_id)
    raise ModelError("the tokenizer has no special token besides its end token; add a padding token to it")
