"""Train the reward model on labels, then improve the policy against it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from rlaif_framework.component import ComponentConfig
from rlaif_framework.errors import DataError
from rlaif_framework.models import load_tokenizer
from rlaif_framework.policy import shorten_prompts
from rlaif_framework.protocols import Algorithm, Guidance, RewardModel
from rlaif_framework.records import load_comparisons, load_preferences
from rlaif_framework.spec import AiFeedback, HumanFeedback
from rlaif_framework.stage import Stage
from rlaif_framework.stages.gate import check_agreement
from rlaif_framework.stages.label import PREFERENCES
from rlaif_framework.stages.sample import COMPARISONS
from rlaif_framework.types import LabelledComparison, Prompt


def fit_reward(stage: Stage, config: ComponentConfig, feedback: AiFeedback | HumanFeedback | None = None) -> None:
    """Fit a reward model to the labels of its arm, if they are any good; comparisons without one are counted."""
    labels = _read_labels(stage, feedback) if config.needs_preferences else []
    model = cast(RewardModel, stage.context.build("reward", config))
    model.fit(labels, stage.inputs["sft"], stage)


def improve_policy(
    stage: Stage,
    config: ComponentConfig,
    reward: ComponentConfig | None,
    feedback: AiFeedback | HumanFeedback | None,
    prompts: Sequence[Prompt],
) -> None:
    """Improve the initial policy with an algorithm, guided by the arm's reward or labels."""
    tokenizer = load_tokenizer(stage.inputs["initial"])
    short, cut = shorten_prompts(prompts, stage.task, tokenizer, stage.context.policy.max_prompt_tokens)
    stage.facts.update(prompts=len(short), prompts_cut=cut)
    guidance = load_reward(stage, reward)
    if config.needs_preferences:
        guidance = replace(guidance, labels=_read_labels(stage, feedback))
    algorithm = cast(Algorithm, stage.context.build("algorithm", config))
    algorithm.improve(stage.inputs["initial"], guidance, short, stage)


def load_reward(stage: Stage, config: ComponentConfig | None) -> Guidance:
    """Open the arm's reward, if it has one."""
    if config is None:
        return Guidance()
    folder = stage.inputs["reward"]
    return Guidance(cast(RewardModel, stage.context.build("reward", config)).load(folder), folder)


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
