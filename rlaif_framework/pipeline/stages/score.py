"""Score held-out comparisons and responses with a reward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.protocols import Reward
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.contracts.validation import score_responses
from rlaif_framework.pipeline.recipes import FittedReward, ScoreComparisonsRecipe, ScoreResponsesRecipe
from rlaif_framework.pipeline.stages.respond import read_responses
from rlaif_framework.records.preferences import Prompt
from rlaif_framework.training.responses import truncate_prompts

SCORES = "scores.json"


def score_comparisons(stage: Stage, context: Context, recipe: ScoreComparisonsRecipe) -> None:
    """Write the margin of each comparison."""
    comparisons, reward = recipe.comparisons, _load(stage, context, recipe.reward)
    prompts = _truncate(context, [c.prompt for c in comparisons])
    repeated = [prompt for prompt in prompts for _ in range(2)]
    responses = [text for c in comparisons for text in c.responses]
    # In one call, so that the responses to a prompt share its computation.
    scores = score_responses(reward, repeated, responses) if comparisons else []
    margins = [a - b for a, b in zip(scores[::2], scores[1::2], strict=True)]
    (stage.folder / SCORES).write_text(json.dumps({"margins": margins}))


def score_policies(stage: Stage, context: Context, recipe: ScoreResponsesRecipe) -> None:
    """Write the score of each response of the baseline and of a policy."""
    reward, prompts = _load(stage, context, recipe.reward), _truncate(context, recipe.prompts)
    baseline, policy = (read_responses(stage.artefact(step)) for step in (recipe.baseline, recipe.responses))
    # In one call, so that the responses to a prompt share its computation.
    found = score_responses(reward, [*prompts, *prompts], [*baseline, *policy])
    scores = {"sft": found[: len(prompts)], "policy": found[len(prompts) :]}
    (stage.folder / SCORES).write_text(json.dumps(scores))


def read_scores(folder: Path) -> dict[str, list[float]]:
    """Read the scores that `score_comparisons` or `score_policies` wrote, by name."""
    return dict(json.loads((folder / SCORES).read_text(encoding="utf-8")))


def _load(stage: Stage, context: Context, fitted: FittedReward) -> Reward:
    return context.build_reward(fitted.config).load(stage.artefact(fitted.step))


def _truncate(context: Context, prompts: Sequence[Prompt]) -> list[Prompt]:
    """Truncate prompts as in training, so that rewards score the same texts."""
    # By the tokenizer of the policy, as in training: rewards may have another one.
    tokenizer = context.load_policy_tokenizer(context.policy_source)
    return truncate_prompts(context, prompts, tokenizer)[0]
