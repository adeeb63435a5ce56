"""Load and save policies."""

from __future__ import annotations

from pathlib import Path

from torch import nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rlaif_framework.assembly.context import Context
from rlaif_framework.models.adapters import save_model, unwrap_adapters
from rlaif_framework.models.chat import find_stop_ids
from rlaif_framework.models.loading import load_model
from rlaif_framework.models.source import ModelSource


def save_policy(context: Context, model: nn.Module, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Save a policy as a plain folder that responds in transformers as it does here.

    Its generation config has greedy decoding, the length limit and the end tokens of the run, and none of the settings
    that the model came with, such as a repetition penalty.

    Args:
        context: Settings of the policy.
        model: A causal LM, with or without adapters, which are merged.
        tokenizer: Its tokenizer, with the chat template if the policy uses it.
        folder: Folder to save to.
    """
    plain = unwrap_adapters(model)
    plain.generation_config = GenerationConfig(
        max_new_tokens=context.policy.max_new_tokens,
        do_sample=False,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=find_stop_ids(tokenizer, plain),
        pad_token_id=tokenizer.pad_token_id,
    )
    save_model(model, tokenizer, folder, context.saved_dtype(context.policy.lora))


def copy_policy(context: Context, source: Path | ModelSource, folder: Path) -> None:
    """Save a policy's model unchanged."""
    model: PreTrainedModel = load_model(context.find_trained(source), "causal", context.weights_dtype, context.device)
    save_policy(context, model, context.load_policy_tokenizer(source), folder)
