"""Gather the comparisons to label: those of the task, pairs sampled from the current policy, or both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from math import comb
from pathlib import Path

from rlaif_framework.assembly.context import Context
from rlaif_framework.contracts.stage import Stage
from rlaif_framework.errors import DataError
from rlaif_framework.pipeline.recipes import SampleRecipe
from rlaif_framework.records.preferences import Comparison, Prompt
from rlaif_framework.records.rows import save_comparisons
from rlaif_framework.seeds import derive_seed, sample_subset
from rlaif_framework.spec.model import PairsConfig
from rlaif_framework.training.responses import sample_from, truncate_prompts

COMPARISONS = "comparisons.jsonl"


def gather_pairs(stage: Stage, context: Context, recipe: SampleRecipe) -> None:
    """Write `comparisons.jsonl`. Pairs with equal or empty responses are dropped and counted.

    Raises:
        DataError: There is no pair of different responses.
    """
    pairs = list(recipe.comparisons)
    if recipe.policy is not None:
        # By the seed of the run, not of the round, so that rounds draw different prompts.
        seed = derive_seed(context.seed, "sample", "prompts")
        prompts = sample_subset(recipe.prompts, recipe.pairs.prompts, seed, recipe.round - 1)
        pairs += _sample_pairs(stage, context, recipe.pairs, stage.artefact(recipe.policy), prompts)
    if not pairs:
        raise DataError("sample: all sampled pairs have equal responses; raise pairs.temperature or pairs.prompts")
    # That of the policy's model, which training does not change.
    tokenizer = context.load_policy_tokenizer(context.policy_source)
    short, truncated = truncate_prompts(context, [pair.prompt for pair in pairs], tokenizer)
    truncated_pairs = (replace(pair, prompt=prompt) for pair, prompt in zip(pairs, short, strict=True))
    save_comparisons(stage.folder / COMPARISONS, truncated_pairs)
    stage.facts.update(comparisons=len(pairs), prompts_truncated=truncated)


def _sample_pairs(
    stage: Stage, context: Context, config: PairsConfig, folder: Path, prompts: Sequence[Prompt]
) -> list[Comparison]:
    """Sample several responses of a policy to each prompt, and pair every two different ones."""
    short, _ = truncate_prompts(context, prompts, context.load_policy_tokenizer(folder))
    samples = sample_from(
        context,
        stage,
        folder,
        short,
        temperature=config.temperature,
        seed=stage.seed("responses"),
        responses=config.responses,
    )
    texts = [context.task.clean(s.text) for s in samples]
    pairs: list[Comparison] = []
    # The original prompts: all pairs are truncated together afterwards, and counted once.
    for index, prompt in enumerate(prompts):
        sampled = texts[index * config.responses : (index + 1) * config.responses]
        different = list(dict.fromkeys(text for text in sampled if text))  # in the order of sampling
        for (i, first), (j, second) in combinations(enumerate(different, 1), 2):
            pairs.append(Comparison(f"{prompt.id}/sampled-{i}-{j}", prompt, (first, second), slice="sampled"))
    stage.facts["pairs_equal_or_empty"] = len(prompts) * comb(config.responses, 2) - len(pairs)
    return pairs
