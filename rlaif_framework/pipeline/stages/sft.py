"""Supervised fine-tuning: the baseline that every arm starts from (RLAIF A.1)."""

from __future__ import annotations

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.models.adapters import save_model
from rlaif_framework.models.loading import load_model, load_tokenizer
from rlaif_framework.pipeline.recipes import SftRecipe
from rlaif_framework.training.fine_tuning import fine_tune
from rlaif_framework.training.responses import truncate_prompts


def train_baseline(stage: Stage, context: Context, recipe: SftRecipe) -> None:
    """Fine-tune the policy's model on reference responses; without settings, save it unchanged."""
    source, config = context.policy_source, recipe.sft
    tokenizer = load_tokenizer(source)
    if config is None:
        save_model(load_model(source, "causal", context.dtype, context.device), tokenizer, stage.folder, context.dtype)
        return
    demonstrations = [p for p in recipe.prompts if p.reference][: config.limit]
    demonstrations, truncated = truncate_prompts(context, demonstrations, tokenizer)
    stage.facts.update(demonstrations=len(demonstrations), prompts_truncated=truncated)
    fine_tune(context, stage, source, [(p.text, p.reference or "") for p in demonstrations], config)
