"""Load models and tokenizers: hub ids, folders, and GGUF files that are dequantised once and kept."""

from __future__ import annotations

from pathlib import Path
from textwrap import shorten
from typing import Any, Literal, cast

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlaif_framework.errors import ModelError
from rlaif_framework.models.gguf import materialise
from rlaif_framework.models.packed_attention import prepare_attention
from rlaif_framework.models.source import ModelSource, find_model

ModelClass = Literal["causal", "score", "plain"]


DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # a weight's shape is not what the config says
    SafetensorError,
    StrictDataclassError,  # a setting of the config is of a wrong type
)
"""What the libraries raise for a model's files that are damaged, or do not fit each other."""


TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")


_CLASSES = {"causal": AutoModelForCausalLM, "score": AutoModelForSequenceClassification, "plain": AutoModel}


def compute_dtype(name: Literal["auto", "fp32", "bf16"], device: torch.device) -> torch.dtype:
    """Resolve a spec's dtype: `auto` is bf16 where the processor computes in it, else fp32."""
    if name != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[name]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    elif device.type == "cpu":
        fast = bool(torch.cpu.get_capabilities().get("avx512_bf16", False))
    else:
        fast = device.type == "xpu"
    return torch.bfloat16 if fast else torch.float32


def load_model(
    where: str | Path | ModelSource, kind: ModelClass, dtype: torch.dtype, device: torch.device, **settings: Any
) -> PreTrainedModel:
    """Load a model for inference or training, with every kind of dropout off.

    Dropout would make the log-probabilities of sampling and of training differ (Huang et al. 2024).

    Args:
        where: A model folder, a name as in a spec, or a source.
        kind: `causal` language model, `score` (one number per sequence), or `plain` (hidden states only).
        dtype: Precision of the weights in memory.
        device: Where to put it.
        settings: Settings of the model's config to change.

    Raises:
        ModelError: It is not a model of that kind.
    """
    source = where if isinstance(where, ModelSource) else find_model(str(where))
    revision = source.revision or "main"
    try:
        location = materialise(source)
        config = AutoConfig.from_pretrained(location, revision=revision, **settings)
        for part in (config, config.get_text_config()):
            # Not the modules alone: attention and some families' layers drop by a function, at a rate of the config.
            rates = [name for name, value in vars(part).items() if "drop" in name and isinstance(value, float)]
            for name in rates:
                setattr(part, name, 0.0)
        model, found = _CLASSES[kind].from_pretrained(
            location, revision=revision, dtype=dtype, config=config, output_loading_info=True
        )
    except DAMAGE as error:
        raise ModelError(f"cannot load '{source.name}' as a {kind} model: {_explain(error)}") from error
    missing = sorted(set(found["missing_keys"]) & {name for name, _ in model.named_parameters()})
    if kind == "causal" and missing:  # transformers would go on with random ones
        raise ModelError(f"'{source.name}' has no weights for {missing[0]} and {len(missing) - 1} more of its config")
    model.to(device)
    prepare_attention(model)
    return cast(PreTrainedModel, model.eval())


def load_tokenizer(where: str | Path | ModelSource, needs_end: bool = True) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer; one without a padding token pads with the end token (masks are always explicit).

    Args:
        where: A model folder, a name as in a spec, or a source.
        needs_end: Whether its texts must be able to end; an embedding model's need not.
    """
    source = where if isinstance(where, ModelSource) else find_model(str(where))
    try:
        tokenizer = AutoTokenizer.from_pretrained(materialise(source), revision=source.revision or "main")
    except DAMAGE as error:
        folder = Path(source.location)
        if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
            raise ModelError(f"the tokenizer of '{source.name}' is missing: no tokenizer.json in {folder}") from error
        raise ModelError(f"cannot load the tokenizer of '{source.name}': {_explain(error)}") from error
    if not needs_end:
        return tokenizer
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer of '{source.name}' has no end-of-sequence token; responses could not end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _explain(error: BaseException) -> str:
    """What is wrong, in one line; the libraries' advice on their own settings is no use to a user of ours."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "ignore_mismatched_sizes" in text:
        return "the shapes of its weights are not those that its config.json tells of"
    return shorten(text, 400, placeholder=" ...")
