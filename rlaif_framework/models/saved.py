"""Check the model folder that a component saved, without loading its weights into memory."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from rlaif_framework.errors import ModelError
from rlaif_framework.models.loading import DAMAGE, TOKENIZER_FILES
from rlaif_framework.models.source import find_weights
from rlaif_framework.models.weights import measure_safetensors

CHUNK = 2**24
"""Number of weights that are looked at together, which bounds the memory."""

_CLASSES = {"causal": AutoModelForCausalLM, "score": AutoModelForSequenceClassification}


def check_saved_model(folder: Path, kind: Literal["causal", "score"]) -> None:
    """Check that a folder has a config, a tokenizer, and all weights of its config.

    Raises:
        ModelError: Something is missing or does not match. The values of the weights are not looked at; see
            `check_finite`.
    """
    weights = find_weights(folder)
    if not weights:
        raise ModelError(f"{folder} has no config.json with model.safetensors")
    absent = [file for file in weights if not file.exists()]
    if absent:
        raise ModelError(f"{folder} lacks {absent[0].name} of its index of weights")
    if not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
        raise ModelError(f"{folder} has no tokenizer")
    measure_safetensors([folder / "config.json", *weights])
    try:
        # On the meta device: names and shapes only.
        model, found = _CLASSES[kind].from_pretrained(
            folder, device_map="meta", output_loading_info=True, trust_remote_code=False
        )
    except DAMAGE as error:
        reason = " ".join(str(error).split())[:400] or type(error).__name__
        raise ModelError(f"{folder} is not a {kind} model: {reason}") from error
    # Buffers and tied weights may be absent from the files.
    missing = sorted(set(found["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if missing:
        raise ModelError(f"{folder} has no weights for {missing[0]} and {len(missing) - 1} more of its config")


def check_finite(folder: Path) -> None:
    """Check that all weights in the safetensors files of a folder are finite, reading one tensor at a time.

    Raises:
        ModelError: A weight is NaN or infinite, or a file is damaged.
    """
    for file in sorted(folder.rglob("*.safetensors")):
        try:
            with safe_open(file, framework="pt") as tensors:
                bad = [name for name in tensors.keys() if not _is_finite(tensors.get_tensor(name))]  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise ModelError(f"{file} is not a complete safetensors file: {error}") from error
        if bad:
            raise ModelError(f"{file}: {bad[0]} and {len(bad) - 1} more tensors have weights that are not finite")


def _is_finite(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() and not tensor.is_complex():
        return True
    # fp8 has no test of its own.
    return all(
        bool(torch.isfinite(part if part.element_size() > 1 else part.float()).all())
        for part in tensor.flatten().split(CHUNK)
    )
