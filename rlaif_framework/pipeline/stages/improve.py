"""Train the reward model on labels, then improve the policy against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Guidance
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import DataError
from rlaif_framework.models.loading import load_tokenizer
from rlaif_framework.pipeline.stages.gate import check_agreement
from rlaif_framework.pipeline.stages.label import PREFERENCES
from rlaif_framework.pipeline.stages.sample import COMPARISONS
from rlaif_framework.plugins.component import ComponentConfig
from rlaif_framework.records.preferences import LabelledComparison, Prompt
from rlaif_framework.records.rows import load_comparisons, load_preferences
from rlaif_framework.spec.model import AiFeedback, HumanFeedback
from rlaif_framework.training.responses import truncate_prompts


def fit_reward(
    stage: Stage, context: Context, config: ComponentConfig, feedback: AiFeedback | HumanFeedback | None = None
) -> None:
    """Fit a reward model to the labels of its arm, if they are any good; comparisons without one are counted."""
    labels = _read_labels(stage, feedback) if config.needs_preferences else []
    model = context.build_reward(config)
    model.fit(labels, stage.inputs["sft"], stage)


def improve_policy(
    stage: Stage,
    context: Context,
    config: ComponentConfig,
    reward: ComponentConfig | None,
    feedback: AiFeedback | HumanFeedback | None,
    prompts: Sequence[Prompt],
) -> None:
    """Improve the initial policy with an algorithm, guided by the arm's reward or labels."""
    tokenizer = load_tokenizer(stage.inputs["initial"])
    short, cut = truncate_prompts(context, prompts, tokenizer)
    stage.facts.update(prompts=len(short), prompts_truncated=cut)
    guidance = load_reward(stage, context, reward)
    if config.needs_preferences:
        guidance = replace(guidance, labels=_read_labels(stage, feedback))
    algorithm = context.build_algorithm(config)
    algorithm.improve(stage.inputs["initial"], guidance, short, stage)


def load_reward(stage: Stage, context: Context, config: ComponentConfig | None) -> Guidance:
    """Open the arm's reward, if it has one."""
    if config is None:
        return Guidance()
    folder = stage.inputs["reward"]
    return Guidance(context.build_reward(config).load(folder), folder)


def _read_labels(stage: Stage, feedback: AiFeedback | HumanFeedback | None) -> list[LabelledComparison]:
    """The arm's labels, if they agree with known preferences or may be weak; those without one are counted."""
    allow_weak = not isinstance(feedback, AiFeedback) or feedback.allow_weak_labels
    check_agreement(stage.inputs["label"], f"stage '{stage.name}'", allow_weak)
    comparisons = load_comparisons(stage.inputs["sample"] / COMPARISONS)
    preferences = load_preferences(stage.inputs["label"] / PREFERENCES)
    pairs = zip(comparisons, preferences, strict=True)
    labels = [LabelledComparison(c, p.probabilities) for c, p in pairs if p.probabilities is not None]
    if not labels:
        raise DataError(
            f"{stage.name}: there is not one label; see how many were left unparsed, inconsistent or refused, and why, "
            f"in the evidence of {stage.inputs['label'] / PREFERENCES}"
        )
    stage.facts.update(labels=len(labels), unlabelled=len(preferences) - len(labels))
    return labels
