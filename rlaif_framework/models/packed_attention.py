"""Attention over packed rows by blocks, which computes few masked scores."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "rlaif_packed"
"""Name under which transformers finds `attend_packed`."""

KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All SDPA kernels except that of cuDNN. It makes a new plan for every row length, and nearly every pass has another
length. On an H200, a plan takes 65 ms forward and 87 ms backward, more than the rest of a pass through a 1B model."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Positions of the prompts and responses of packed rows, with each response as a block of its own."""

    gather_index: Tensor
    """(responses, longest response) position of each response token, row * length + column; shorter responses repeat
    their last one."""
    row_index: Tensor
    """(responses,) row of each response."""
    mask: Tensor
    """(responses, 1, longest response, longest prompt + longest response) bool attention mask."""
    restore_index: Tensor
    """(rows * length,) index of each position's result among those of all prompts and then all blocks."""

    @property
    def prompt(self) -> int:
        """Tokens of the longest prompt."""
        return self.mask.shape[3] - self.mask.shape[2]

    def to(self, device: torch.device) -> Blocks:
        """Copy the index to another device."""
        return Blocks(*(getattr(self, field.name).to(device) for field in fields(self)))


def make_additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Convert a bool mask to one that is added to scores: 0 where True, the lowest number of the dtype elsewhere."""
    # Not -inf: a row that is masked entirely would be NaN after the softmax.
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


class PackedAttention:
    """Attention by blocks, passed to the layers of a model along with the mask of a packed batch."""

    def __init__(self, mask: Tensor, blocks: Blocks) -> None:
        self.row_mask = mask
        """The additive mask of whole rows, (rows, 1, length, length)."""
        self.blocks = blocks
        self._additive: dict[int, Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
        """Compute attention of every token to its prompt and its own response.

        Args:
            query: (rows, heads, length, width).
            key: (rows, key heads, length, width).
            value: (rows, key heads, length, value width).
            scaling: Factor of the scores; None is the default of SDPA.
            dropout: Dropout probability of attention weights.

        Returns:
            (rows, length, heads, value width); any finite numbers for padding.
        """
        shared = query.shape[1] // key.shape[1]  # query heads per key head
        size = self.blocks.prompt
        # Prompts are first in their rows; results after the end of a shorter prompt are not used. Heads are repeated,
        # because `is_causal` allows no further tokens per position, as `_attend_responses` has.
        prompts = scaled_dot_product_attention(
            query[:, :, :size],
            repeat_kv(key[:, :, :size], shared),
            repeat_kv(value[:, :, :size], shared),
            dropout_p=dropout,
            scale=scaling,
            is_causal=True,
        ).transpose(1, 2)
        responses = self._attend_responses(query, key, value, shared, scaling, dropout)
        # (rows * longest prompt + responses * longest response, heads, value width)
        both = torch.cat([prompts.flatten(0, 1), responses.reshape(-1, *prompts.shape[2:])])
        return both.index_select(0, self.blocks.restore_index).view(len(query), -1, *prompts.shape[2:])

    def _attend_responses(
        self, query: Tensor, key: Tensor, value: Tensor, shared: int, scaling: float | None, dropout: float
    ) -> Tensor:
        """Compute attention of the blocks of responses, (responses, longest response, key heads, shared, value width).

        The `shared` query heads of a key head are treated as further tokens: keys and values are not repeated.
        """
        blocks, size = self.blocks, self.blocks.prompt
        responses, length = blocks.gather_index.shape
        queries = self._gather(query).view(responses, length, -1, shared, query.shape[3])
        queries = queries.permute(0, 2, 3, 1, 4).reshape(responses, -1, shared * length, query.shape[3])
        keys, values = (
            torch.cat([x[:, :, :size].index_select(0, blocks.row_index), self._gather(x).transpose(1, 2)], 2)
            for x in (key, value)
        )  # (responses, key heads, longest prompt + longest response, width)
        result = scaled_dot_product_attention(
            queries, keys, values, attn_mask=self._block_mask(shared), dropout_p=dropout, scale=scaling
        )
        return result.view(responses, -1, shared, length, value.shape[3]).permute(0, 3, 1, 2, 4)

    def _gather(self, states: Tensor) -> Tensor:
        """Gather blocks: (rows, heads, length, width) to (responses, longest response, heads, width)."""
        tokens, index = states.transpose(1, 2).flatten(0, 1), self.blocks.gather_index
        # `index_select` instead of `tokens[index]`, whose backward pass takes six times as long.
        return tokens.index_select(0, index.flatten()).view(*index.shape, *tokens.shape[1:])

    def _block_mask(self, shared: int) -> Tensor:
        """Return the additive mask of blocks whose queries are repeated for `shared` heads."""
        if shared not in self._additive:
            self._additive[shared] = make_additive(self.blocks.mask, self.row_mask.dtype).repeat(1, 1, shared, 1)
        return self._additive[shared]


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: PackedAttention | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """Compute attention by blocks if a layer receives the mask of a packed batch unchanged, else by `sdpa`.

    The arguments have transformers' names, since some models pass them by name. A model that changes the mask, or uses
    a cache, passes another tensor, and its attention follows that mask.
    """
    if packed is None or attention_mask is not packed.row_mask or rest.get("position_bias") is not None:
        with sdpa_kernel(KERNELS) if query.is_cuda else nullcontext():
            return sdpa_attention_forward(module, query, key, value, attention_mask, dropout, scaling, **rest)
    return packed.attend(query, key, value, scaling, dropout), None


def prepare_attention(model: PreTrainedModel) -> None:
    """Use `attend_packed` in a model whose attention is `sdpa`; other models stay as they are."""
    config = model.config.get_text_config()
    # Models such as DeepSeek-V3.2 select the tokens that they attend to, but only under the names of transformers.
    sparse = any(name.startswith("index_topk") for name in config.to_dict())
    # The public setter would also change the nested configs, such as that of a vision tower.
    if model._supports_attention_backend and config._attn_implementation == "sdpa" and not sparse:
        config._attn_implementation_internal = ATTENTION


def is_prepared(model: PreTrainedModel) -> bool:
    """Return True if a model's layers accept a `PackedAttention`."""
    return bool(model.config.get_text_config()._attn_implementation == ATTENTION)


# Registered on import: the config of a prepared model names this implementation wherever the model is used.
AttentionInterface.register(ATTENTION, attend_packed)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
