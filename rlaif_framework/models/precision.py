"""Choose the compute precision, and compute the head of a language model in fp32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

HEAD_CHUNK = 16384
"""Number of rows of a head's weights that are converted to fp32 at once."""


def compute_dtype(name: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """Resolve a spec's `dtype`: `auto` is bf16 where the processor supports it natively, else fp32."""
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    # Emulated bf16 would be slower than fp32.
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        native = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    else:
        native = device.type == "xpu"
    return torch.bfloat16 if native else torch.float32


@contextmanager
def use_fp32_head(model: PreTrainedModel) -> Iterator[None]:
    """Compute the logits of a language model in fp32 within the block, whatever the precision of its weights.

    bf16 has 8 significant bits: logits near 16 differ by at least 0.125, so that label probabilities are coarse and
    often exactly 0.5. The weights are converted at each call; use it for few positions only.
    """
    head = model.get_output_embeddings()
    if type(head) is not nn.Linear or head.weight.dtype == torch.float32:  # wrapped or quantised ones stay as they are
        yield
        return
    linear = head
    # On the instance: the method of the class is used again once the attribute is gone.
    linear.forward = lambda hidden: _apply_in_fp32(linear, hidden)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        del linear.forward


def _apply_in_fp32(head: nn.Linear, hidden: Tensor) -> Tensor:
    """Apply a linear layer in fp32, to (..., width). Its weights are converted in chunks, to bound the memory."""
    biases = [None] * len(head.weight.split(HEAD_CHUNK)) if head.bias is None else head.bias.float().split(HEAD_CHUNK)
    parts = zip(head.weight.split(HEAD_CHUNK), biases, strict=True)
    return torch.cat([nn.functional.linear(hidden.float(), weight.float(), bias) for weight, bias in parts], -1)
