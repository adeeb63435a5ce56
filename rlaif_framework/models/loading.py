"""Load models and tokenizers from hub ids, folders and GGUF files."""

from __future__ import annotations

import datetime
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
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from rlaif_framework.errors import ModelError
from rlaif_framework.models.chat import DATE, complete_prompt, fix_date
from rlaif_framework.models.gguf import materialise
from rlaif_framework.models.packed_attention import prepare_attention
from rlaif_framework.models.probe import probe_model
from rlaif_framework.models.source import ModelSource, find_model
from rlaif_framework.models.trust import check_class, check_config, source_settings

ModelClass = Literal["causal", "score", "plain"]

DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RuntimeError,  # the shape of a weight differs from the config
    SafetensorError,
    StrictDataclassError,  # a setting of the config has the wrong type
)
"""Errors that the libraries raise if the files of a model are damaged or do not match."""

TOKENIZER_FILES = ("tokenizer*", "vocab*", "*.model", "*.tiktoken")

_CLASSES = {"causal": AutoModelForCausalLM, "score": AutoModelForSequenceClassification, "plain": AutoModel}


def load_model(
    where: str | Path | ModelSource, kind: ModelClass, dtype: torch.dtype, device: torch.device, **settings: Any
) -> PreTrainedModel:
    """Load a model for inference or training, with all dropout disabled.

    With dropout, the log-probabilities of sampling and of training would differ (Huang et al. 2024).

    Args:
        where: A model folder, a name in the same forms as `policy.model`, or a source.
        kind: `causal` (a language model), `score` (one number per sequence), or `plain` (hidden states only).
        dtype: Precision of the weights in memory.
        device: Device to load it to.
        settings: Settings of the model's config to override.

    Raises:
        ModelError: It is not a model of that kind, or its files are damaged.
    """
    source = where if isinstance(where, ModelSource) else find_model(str(where))
    try:
        location = materialise(source)
        config = AutoConfig.from_pretrained(location, **source_settings(source), **settings)
        check_config(config, source.name)
        _disable_dropout(config)
        model, found = _CLASSES[kind].from_pretrained(
            location,
            **source_settings(source),
            dtype=dtype,
            config=config,
            use_safetensors=True,  # other files of weights can run code
            output_loading_info=True,
        )
    except DAMAGE as error:
        raise ModelError(f"cannot load '{source.name}' as a {kind} model: {_explain(error)}") from error
    check_class(model, source.name)
    # Buffers and tied weights may be absent from the files.
    missing = sorted(set(found["missing_keys"]) & {name for name, _ in model.named_parameters()})
    missing = [name for name in missing if not _may_be_missing(name, kind, model)]
    if missing:  # transformers initialises them at random
        raise ModelError(f"'{source.name}' has no weights for {missing[0]} and {len(missing) - 1} more of its config")
    model.to(device).eval()
    if kind == "causal":
        probe_model(model, "causal", source.name)
    prepare_attention(model)
    return cast(PreTrainedModel, model)


def _may_be_missing(name: str, kind: str, model: PreTrainedModel) -> bool:
    """Return True for a weight that need not be in the files: the head of a new reward model, or an unused pooler."""
    base = f"{model.base_model_prefix}."
    if kind == "plain":
        return name.startswith("pooler.")
    if kind == "causal" or name.startswith(base):
        return name.startswith(f"{base}pooler.")
    architectures = model.config.architectures or []
    return not any("SequenceClassification" in str(architecture) for architecture in architectures)


def load_config(source: ModelSource) -> PreTrainedConfig:
    """Load a model's config.

    Raises:
        ModelError: It is damaged.
    """
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(materialise(source), **source_settings(source))
    except DAMAGE as error:
        raise ModelError(f"cannot load the config of '{source.name}': {_explain(error)}") from error
    check_config(config, source.name)
    return config


def _disable_dropout(config: Any) -> None:
    # In the config, not in the modules: attention and some families' layers call `dropout` with a rate of the config.
    for part in (config, config.get_text_config()):
        # Jitter is noise in the inputs of experts during training.
        rates = [n for n, value in vars(part).items() if ("drop" in n or "jitter" in n) and isinstance(value, float)]
        for name in rates:
            setattr(part, name, 0.0)


def load_tokenizer(
    where: str | Path | ModelSource, needs_end: bool = True, date: datetime.date = DATE
) -> PreTrainedTokenizerBase:
    """Load a model's tokenizer. Without a padding token, the EOS token is used (attention masks are always explicit).

    The date of today in a chat template is replaced by a fixed one, so that prompts do not change from day to day, and
    its generation prompt is completed up to where the answer begins; see `complete_prompt`.

    Args:
        where: A model folder, a name in the same forms as `policy.model`, or a source.
        needs_end: If True, require an EOS token; an embedding model needs none.
        date: Date for chat templates that print the date of today.

    Raises:
        ModelError: The tokenizer is missing or damaged, or has no EOS token, or none of its chat templates is the
            default.
    """
    source = where if isinstance(where, ModelSource) else find_model(str(where))
    try:
        tokenizer = AutoTokenizer.from_pretrained(materialise(source), **source_settings(source))
    except DAMAGE as error:
        folder = Path(source.location)
        if folder.is_dir() and not any(any(folder.glob(pattern)) for pattern in TOKENIZER_FILES):
            raise ModelError(f"the tokenizer of '{source.name}' is missing: no tokenizer.json in {folder}") from error
        raise ModelError(f"cannot load the tokenizer of '{source.name}': {_explain(error)}") from error
    templates = tokenizer.chat_template
    if isinstance(templates, dict) and "default" not in templates:
        raise ModelError(
            f"the tokenizer of '{source.name}' has the chat templates {', '.join(sorted(templates))} and none named "
            "'default'; rename one of them in a copy of the model"
        )
    template = templates["default"] if isinstance(templates, dict) else templates
    tokenizer.chat_template = None if template is None else fix_date(template, date)
    if template is not None:
        complete_prompt(tokenizer)
    if not needs_end:
        return tokenizer
    if tokenizer.eos_token_id is None:
        raise ModelError(
            f"the tokenizer of '{source.name}' has no EOS token; responses could not end; use another model"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _explain(error: BaseException) -> str:
    """Describe a library's error in one line, without advice on arguments that users of a spec cannot set."""
    text = " ".join(str(error).split()) or type(error).__name__
    if "ignore_mismatched_sizes" in text:
        return "the shapes of its weights do not match its config.json"
    if "trust_remote_code" in text:
        return (
            "it needs the Python code in its folder or repository; read it, and if you trust it, set "
            "'trust_remote_code: true' where the model is named in the spec"
        )
    return shorten(text, 400, placeholder=" ...")
