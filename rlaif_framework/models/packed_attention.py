"""Attention over packed rows that computes little more than the scores that the mask lets through."""

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


KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""All but cuDNN's, which plans anew for every length of rows, and nearly every pass has its own. On an H200 a plan
takes 65 ms forward and 87 ms backward, more than all else of a pass through a 1B model."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Where the prompts and responses of packed rows are, each response cut out as a block of its own."""

    places: Tensor
    """(responses, longest response) the place of each response token, row * length + column; what is left of a shorter
    response repeats its last place."""
    owners: Tensor
    """(responses,) the row of each response."""
    mask: Tensor
    """(responses, 1, longest response, longest prompt + longest response) bool: who sees whom."""
    back: Tensor
    """(rows * length,) where the result of each place is, counting the prompts' places and then the blocks'."""

    @property
    def prompt(self) -> int:
        """Length of the longest prompt."""
        return self.mask.shape[3] - self.mask.shape[2]

    def to(self, device: torch.device) -> Blocks:
        """The same on another device."""
        return Blocks(*(getattr(self, field.name).to(device) for field in fields(self)))


def make_additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to scores for a mask of who sees whom: nothing, or the lowest number there is."""
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill_(~mask, torch.finfo(dtype).min)


class PackedAttention:
    """What the layers of a model are told beside the mask of a packed batch."""

    def __init__(self, mask: Tensor, blocks: Blocks) -> None:
        self.whole = mask
        """The additive mask that goes with it, (rows, 1, length, length)."""
        self.blocks = blocks
        self._additive: dict[int, Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, dropout: float) -> Tensor:
        """Attention of every token to its prompt and to its own response.

        Args:
            query: (rows, heads, length, width).
            key: (rows, key heads, length, width).
            value: (rows, key heads, length, value width).
            scaling: Factor of the scores.
            dropout: Probability of dropping a weight.

        Returns:
            (rows, length, heads, value width); of padding, any finite numbers.
        """
        shared = query.shape[1] // key.shape[1]  # query heads a key head
        size = self.blocks.prompt
        # Prompts stand first in their rows: what follows a shorter one is computed too, and not used.
        prompts = scaled_dot_product_attention(
            query[:, :, :size],
            repeat_kv(key[:, :, :size], shared),
            repeat_kv(value[:, :, :size], shared),
            dropout_p=dropout,
            scale=scaling,
            is_causal=True,
        ).transpose(1, 2)
        # The query heads of a key head attend as if they were further tokens: keys and values are not repeated.
        responses, length = self.blocks.places.shape
        own = self._cut(query).view(responses, length, -1, shared, query.shape[3])
        own = own.permute(0, 2, 3, 1, 4).reshape(responses, -1, shared * length, query.shape[3])
        seen, values = (
            torch.cat([x[:, :, :size].index_select(0, self.blocks.owners), self._cut(x).transpose(1, 2)], 2)
            for x in (key, value)
        )
        result = scaled_dot_product_attention(
            own, seen, values, attn_mask=self._block_mask(shared), dropout_p=dropout, scale=scaling
        )
        result = result.view(responses, -1, shared, length, value.shape[3]).permute(0, 3, 1, 2, 4)
        both = torch.cat([prompts.flatten(0, 1), result.reshape(responses * length, *prompts.shape[2:])])
        return both.index_select(0, self.blocks.back).view(len(query), -1, *prompts.shape[2:])

    def _cut(self, states: Tensor) -> Tensor:
        """(rows, heads, length, width) to (responses, longest response, heads, width)."""
        tokens = states.transpose(1, 2).flatten(0, 1)  # not indexed by a table: its gradient takes six times as long
        return tokens.index_select(0, self.blocks.places.flatten()).view(*self.blocks.places.shape, *tokens.shape[1:])

    def _block_mask(self, shared: int) -> Tensor:
        if shared not in self._additive:
            self._additive[shared] = make_additive(self.blocks.mask, self.whole.dtype).repeat(1, 1, shared, 1)
        return self._additive[shared]


def attend_packed(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    packed: PackedAttention | None = None,
    **rest: Any,
) -> tuple[Tensor, None]:
    """What transformers calls for every layer: its own `sdpa`, unless a packed batch's own mask has come this far.

    A model that adds to the mask, cuts it or puts a cache before it gives another tensor, and its attention is left to
    that tensor.
    """
    if packed is None or mask is not packed.whole or rest.get("position_bias") is not None:
        with sdpa_kernel(KERNELS) if query.is_cuda else nullcontext():
            return sdpa_attention_forward(module, query, key, value, mask, dropout, scaling, **rest)
    return packed.attend(query, key, value, scaling, dropout), None


def prepare_attention(model: PreTrainedModel) -> None:
    """Let a model that would attend by `sdpa` attend by `attend_packed`."""
    config = model.config.get_text_config()
    if model._supports_attention_backend and config._attn_implementation == "sdpa":
        config._attn_implementation_internal = ATTENTION


def is_prepared(model: PreTrainedModel) -> bool:
    """Whether a model's layers can be told of a `PackedAttention`."""
    return bool(model.config.get_text_config()._attn_implementation == ATTENTION)


AttentionInterface.register(ATTENTION, attend_packed)


AttentionMaskInterface.register(ATTENTION, sdpa_mask)
