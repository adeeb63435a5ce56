"""Choose the compute precision."""

from __future__ import annotations

from typing import Literal

import torch


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
