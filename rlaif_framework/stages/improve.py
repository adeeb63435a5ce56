"""Train the reward model on labels, then improve the policy against it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

from rlaif_framework.component import ComponentConfig
from rlaif_framework.errors import DataError
from rlaif_framework.models import load_tokenizer
from rlaif_framework.policy import shorten_prompts
from rlaif_framework.protocols import Algorithm, RewardModel
from rlaif_framework.records import load_comparisons, load_preferences
from rlaif_framework.spec import AiFeedback, HumanFeedback
from rlaif_framework.stage import Stage
from rlaif_framework.stages.gate import check_agreement
from rlaif_framework.stages.label import PREFERENCES
from rlaif_framework.stages.sample import COMPARISONS
from rlaif_framework.types import LabelledComparison, Prompt


def fit_reward(stage: Stage, config: ComponentConfig, feedback: AiFeedback | HumanFeedback | None = None) -> None:
    """Fit a reward model to the labels of its arm, if they are any good; comparisons without one are counted."""
    labels: list[LabelledComparison] = []
    if "label" in stage.inputs:
        allow_weak = not isinstance(feedback, AiFeedback) or feedback.allow_weak_labels
        check_agreement(stage.inputs["label"], f"stage '{stage.name}'", allow_weak)
        comparisons = load_comparisons(stage.inputs["sample"] / COMPARISONS)
        preferences = load_preferences(stage.inputs["label"] / PREFERENCES)
        pairs = zip(comparisons, preferences, strict=True)
        labels = [LabelledComparison(c, p.probabilities) for c, p in pairs if p.probabilities is not None]
        if not labels:
            raise DataError("reward: there is not one label; see how many the labeler left unparsed or inconsistent")
        stage.facts.update(labels=len(labels), unlabelled=len(preferences) - len(labels))
    model = cast(RewardModel, stage.context.build("reward", config))
    model.fit(labels, stage.inputs["sft"], stage)


def improve_policy(
    stage: Stage, config: ComponentConfig, reward_config: ComponentConfig, prompts: Sequence[Prompt]
) -> None:
    """Improve the baseline with an algorithm, against the arm's reward."""
    reward_folder: Path = stage.inputs["reward"]
    tokenizer = load_tokenizer(stage.inputs["sft"])
    short, cut = shorten_prompts(prompts, stage.task, tokenizer, stage.context.policy.max_prompt_tokens)
    stage.facts.update(prompts=len(short), prompts_cut=cut)
    reward = cast(RewardModel, stage.context.build("reward", reward_config)).load(reward_folder)
    algorithm = cast(Algorithm, stage.context.build("algorithm", config))
    algorithm.improve(stage.inputs["sft"], reward, reward_folder, short, stage)
