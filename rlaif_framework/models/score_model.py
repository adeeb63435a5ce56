"""A transformers model with a scalar head at every position: reward models and value models."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from rlaif_framework.errors import ModelError
from rlaif_framework.models.adapters import add_lora, leave_casts_to_autocast, save_model, share_weights
from rlaif_framework.models.layouts import layout_of, set_layout
from rlaif_framework.models.loading import load_config, load_model
from rlaif_framework.models.packing import Group, Packed, choose_rows, pack_groups, split_by_tokens
from rlaif_framework.models.positions import check_length
from rlaif_framework.models.probe import probe_model
from rlaif_framework.models.source import ModelSource, find_model
from rlaif_framework.models.trust import has_own_code
from rlaif_framework.spec.model import LoraSettings

PADDING = "<|padding|>"
"""Padding token that is added to tokenizers without a suitable one."""


class ScoreModel(nn.Module):
    """A sequence-classification model with one output, computed at given positions of a packed batch."""

    def __init__(self, model: nn.Module, inner: PreTrainedModel) -> None:
        super().__init__()
        self.model = model
        """The transformers model, with or without adapters."""
        self._inner = (inner,)  # in a tuple, so that its parameters are not registered twice

    @classmethod
    def load(
        cls,
        where: str | Path | ModelSource,
        tokenizer: PreTrainedTokenizerBase,
        dtype: torch.dtype,
        device: torch.device,
        lora: LoraSettings | None = None,
        train: bool = False,
        head: Literal["zeros", "normal"] = "zeros",
    ) -> ScoreModel:
        """Load a model; a causal LM gets a new head, a saved scoring model keeps its head.

        Args:
            where: A model folder, a name as in a spec, or a source.
            tokenizer: Its tokenizer; gets a padding token other than its end token, see `separate_padding`.
            dtype: Precision of the weights that are not trained.
            device: Device of the model.
            lora: Adapters to train instead of all weights.
            train: If True, the weights or adapters are trained, in fp32.
            head: Initial weights of a new head: zeros, or N(0, 1 / (width + 1)) (Huang et al. 2024).

        Raises:
            ModelError: The architecture has no sequence-classification head named `score`.
        """
        weights = torch.float32 if train and lora is None else dtype
        pad = separate_padding(tokenizer)
        source = where if isinstance(where, ModelSource) else find_model(str(where))
        inner = load_model(source, "score", weights, device, num_labels=1)
        embed_padding(inner, pad)
        inner.config.get_text_config().pad_token_id = inner.config.pad_token_id = pad
        linear = dict(inner.named_children()).get("score")
        if not isinstance(linear, nn.Linear):
            raise ModelError(f"'{source.name}': {type(inner).__name__} has no linear head named 'score'")
        probe_model(inner, "score", source.name)
        linear.float()  # bf16 has 8 significant bits: similar responses would get equal scores
        if not any("ForSequenceClassification" in name for name in _architectures(source)):
            # Zeros are drawn too: the random stream, from which adapters come next, must not depend on the head.
            deviation = (linear.in_features + 1) ** -0.5 if head == "normal" else 0.0
            nn.init.normal_(linear.weight, std=deviation)
        model: nn.Module = inner
        if train and lora is not None:
            model = add_lora(inner, lora, "SEQ_CLS")
        return cls(model, inner)

    @classmethod
    def over(cls, model: PreTrainedModel, lora: LoraSettings) -> ScoreModel:
        """Create a model that shares the weights of a causal LM, with its own adapters and a head of zeros."""
        shared = share_weights(model)
        config = copy.deepcopy(shared.config)
        config.num_labels = 1
        # On the meta device: the base model built here is replaced by the shared one and needs no memory.
        with torch.device("meta"):
            inner = AutoModelForSequenceClassification.from_config(config, trust_remote_code=has_own_code(config))
        setattr(inner, inner.base_model_prefix, shared.base_model)
        set_layout(inner, layout_of(model))
        head = dict(inner.named_children()).get("score")
        if not isinstance(head, nn.Linear):
            raise ModelError(f"{type(inner).__name__} has no linear head named 'score'")
        inner.score = nn.Linear(head.in_features, 1, bias=head.bias is not None, device=shared.device)
        for parameter in inner.score.parameters():
            nn.init.zeros_(parameter)
        return cls(add_lora(inner, lora, "SEQ_CLS"), inner)

    def forward(self, packed: Packed, rows: Tensor, columns: Tensor) -> Tensor:
        """Compute scores at the given positions of a packed batch, (positions,) fp32."""
        inner = self._inner[0]
        fitted = packed.fit(inner)
        if fitted is not packed:
            rows, columns = packed.locate(rows, columns)
        with leave_casts_to_autocast(inner):
            hidden = inner.base_model(
                **fitted.model_inputs(inner), use_cache=False
            ).last_hidden_state  # (rows, length, width)
        selected = hidden[rows, columns]  # (positions, width)
        with torch.autocast(selected.device.type, enabled=False):  # the head is kept in fp32
            return inner.score(selected.float()).squeeze(-1)  # type: ignore[operator,no-any-return]

    def check_lengths(self, groups: Sequence[Group]) -> None:
        """Check that all prompts with their responses fit into the model's positions.

        Raises:
            ModelError: One does not.
        """
        longest = max((group.longest for group in groups), default=0)
        advice = "lower policy.max_prompt_tokens, or set max_response_tokens"
        check_length(self._inner[0].config, longest, "a prompt with a response to score", advice)

    def save(self, tokenizer: PreTrainedTokenizerBase, folder: Path, dtype: torch.dtype) -> None:
        """Save a folder that `AutoModelForSequenceClassification` loads.

        All weights are saved in one precision, since transformers loads them so. In bf16, the scores differ from those
        of this model by the rounding of the trained weights, the head's included.
        """
        save_model(self.model, tokenizer, folder, dtype)

    @torch.no_grad()
    def score_groups(self, groups: Sequence[Group], pad_id: int, budget: int, dtype: torch.dtype) -> list[float]:
        """Score all responses at their last tokens, in order, without gradients."""
        scores: dict[int, list[float]] = {}
        device = next(self.parameters()).device
        for batch in split_by_tokens([g.length for g in groups], budget):
            packed = pack_groups(choose_rows([groups[i] for i in batch]), pad_id, device)
            with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
                values = iter(self(packed, packed.ends[:, 0], packed.ends[:, 1]).tolist())
            # `choose_rows` may split a group into rows, but keeps the order of the responses.
            for i in batch:
                scores[i] = [next(values) for _ in groups[i].responses]
        return [value for i in range(len(groups)) for value in scores[i]]


def _architectures(source: ModelSource) -> list[str]:
    return list(load_config(source).architectures or [])


def embed_padding(model: PreTrainedModel, pad: int) -> None:
    """Add an embedding for a new padding token, which transformers looks up although it is masked."""
    if pad >= cast(nn.Embedding, model.get_input_embeddings()).num_embeddings:
        model.resize_token_embeddings(pad + 1, mean_resizing=False)


def separate_padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """Set a padding token other than the end token, adding a new one if necessary, and return its id.

    transformers scores a sequence at its last token that is not padding: with the end token as padding, that would be
    one position too early.
    """
    end = tokenizer.eos_token_id
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != end:
        return int(tokenizer.pad_token_id)
    for token in (tokenizer.unk_token, tokenizer.bos_token, *tokenizer.all_special_tokens):
        if token is not None and tokenizer.convert_tokens_to_ids(token) != end:
            tokenizer.pad_token = token
            return int(tokenizer.pad_token_id)
    tokenizer.add_special_tokens({"pad_token": PADDING})  # tokenizers like GPT-2's have no other special token
    return int(tokenizer.pad_token_id)
