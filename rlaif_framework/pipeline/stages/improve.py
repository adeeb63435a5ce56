"""Fit the reward model of an arm to its labels, then improve the policy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Guidance
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import DataError
from rlaif_framework.pipeline.artefact_files import PREFERENCES
from rlaif_framework.pipeline.recipes import ArmLabels, FittedReward, ImproveRecipe, RewardRecipe
from rlaif_framework.pipeline.stages.sample import COMPARISONS
from rlaif_framework.records.preferences import LabelledComparison
from rlaif_framework.records.rows import load_comparisons, load_preferences
from rlaif_framework.training.responses import truncate_prompts


def fit_reward(stage: Stage, context: Context, recipe: RewardRecipe) -> None:
    """Fit a reward model to the labels of its arm, if it learns from labels."""
    labels = _read_labels(stage, recipe.labels) if recipe.labels is not None else []
    initial = stage.artefact(recipe.sft) if recipe.sft is not None else Path()
    context.build_reward(recipe.reward).fit(labels, initial, stage)


def improve_policy(stage: Stage, context: Context, recipe: ImproveRecipe) -> None:
    """Improve the initial policy with an algorithm, guided by the arm's reward, its labels, or both."""
    initial = stage.artefact(recipe.initial)
    short, truncated = truncate_prompts(context, recipe.prompts, context.load_policy_tokenizer(initial))
    stage.facts.update(prompts=len(short), prompts_truncated=truncated)
    guidance = load_reward(stage, context, recipe.reward)
    if recipe.labels is not None:
        guidance = replace(guidance, labels=_read_labels(stage, recipe.labels))
    context.build_algorithm(recipe.algorithm).improve(initial, guidance, short, stage)


def load_reward(stage: Stage, context: Context, fitted: FittedReward | None) -> Guidance:
    """Load the arm's reward, if it has one."""
    if fitted is None:
        return Guidance()
    folder = stage.artefact(fitted.step)
    return Guidance(context.build_reward(fitted.config).load(folder), folder)


def _read_labels(stage: Stage, labels: ArmLabels) -> list[LabelledComparison]:
    """Read an arm's labels. Comparisons without a label are dropped and counted.

    Raises:
        DataError: No comparison has a label.
    """
    folder = stage.artefact(labels.label)
    comparisons = load_comparisons(stage.artefact(labels.sample) / COMPARISONS)
    preferences = load_preferences(folder / PREFERENCES)
    labelled = [
        LabelledComparison(comparison, preference.probabilities)
        for comparison, preference in zip(comparisons, preferences, strict=True)
        if preference.probabilities is not None
    ]
    if not labelled:
        raise DataError(
            f"{stage.name}: no comparison has a label; see the evidence in {folder / PREFERENCES} for how many were "
            "unparsed, inconsistent or refused, and why"
        )
    stage.facts.update(labels=len(labelled), unlabelled=len(preferences) - len(labelled))
    return labelled
