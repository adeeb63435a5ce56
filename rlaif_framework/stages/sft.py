"""Supervised fine-tuning: the baseline every arm starts from (RLAIF A.1)."""

from __future__ import annotations

from collections.abc import Sequence

from rlaif_framework.fine_tuning import fine_tune
from rlaif_framework.models import load_model, load_tokenizer, save_model
from rlaif_framework.policy import shorten_prompts
from rlaif_framework.spec import SftConfig
from rlaif_framework.stage import Stage
from rlaif_framework.types import Prompt


def train_baseline(stage: Stage, config: SftConfig | None, prompts: Sequence[Prompt]) -> None:
    """Fine-tune the policy's model on reference responses; without a config, save it as it is."""
    context = stage.context
    source = context.policy_source
    tokenizer = load_tokenizer(source)
    if config is None:
        save_model(load_model(source, "causal", context.dtype, context.device), tokenizer, stage.folder, context.dtype)
        return
    demonstrations = [p for p in prompts if p.reference][: config.limit]
    demonstrations, cut = shorten_prompts(demonstrations, stage.task, tokenizer, context.policy.max_prompt_tokens)
    stage.facts.update(demonstrations=len(demonstrations), prompts_cut=cut)
    fine_tune(stage, source, [(p.text, p.reference or "") for p in demonstrations], config)
