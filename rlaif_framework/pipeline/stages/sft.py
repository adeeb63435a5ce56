"""Supervised fine-tuning: the baseline that every arm starts from (RLAIF A.1)."""

from __future__ import annotations

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.pipeline.recipes import SftRecipe
from rlaif_framework.training.fine_tuning import fine_tune
from rlaif_framework.training.policies import copy_policy
from rlaif_framework.training.responses import truncate_prompts


def train_baseline(stage: Stage, context: Context, recipe: SftRecipe) -> None:
    """Fine-tune the policy's model on reference responses; without settings, save it unchanged."""
    source, config = context.policy_source, recipe.sft
    if config is None:
        copy_policy(context, source, stage.folder)
        return
    tokenizer = context.load_policy_tokenizer(source)
    demonstrations = [p for p in recipe.prompts if p.reference][: config.limit]
    demonstrations, truncated = truncate_prompts(context, demonstrations, tokenizer)
    stage.facts.update(demonstrations=len(demonstrations), prompts_truncated=truncated)
    fine_tune(context, stage, source, [(p, p.reference or "") for p in demonstrations], config)
